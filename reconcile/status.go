package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ipvs-ha/ipvs-ha/fault"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// MaxListed bounds the lists of a Status.
const MaxListed = 1000

// Status is how far a kernel is as desired. It is a value: what it points to is
// never written to again.
type Status struct {
	AppliedRevision uint64            // the newest revision whose table was wholly in the kernel
	Seen            uint64            // the number, as Set returned it, of the newest value whose role was carried out
	Converged       bool              // the kernel is as desired, sync daemons included
	Daemons         []ipvs.Daemon     // as the kernel listed them last
	Foreign         []ipvs.ServiceKey // services that are not ours; at most MaxListed
	ForeignCount    int
	DriftRepaired   uint64 // objects that somebody else had changed and that were set right, since the start
	// Errors is what is not as desired and why, at most MaxListed. Objects are a service,
	// "SERVICE destination ADDRESS", "table", "timeouts", "sync daemons", "ownership record".
	Errors     []fault.Fault
	ErrorCount int
	LastFull   time.Time // when the whole kernel was read last; zero before the first time
	Warnings   []string  // what an operator should know, though nothing is refused
}

// refusal is what the kernel has refused.
type refusal struct {
	fault.Fault
	key ipvs.ServiceKey // the service that it belongs to; zero = the table as a whole
}

func refusalOf(object string, err error) refusal {
	return refusal{Fault: fault.Fault{Object: object, Message: err.Error()}}
}

// listed returns the first of refused.
func listed(refused []refusal) []fault.Fault {
	list := make([]fault.Fault, min(len(refused), MaxListed))
	for i := range list {
		list[i] = refused[i].Fault
	}
	return list
}

// Status returns the current status.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Changed returns a channel that is closed when the status changes. To miss nothing
// take it before Status.
func (l *Loop) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// WaitApplied returns nil when the table of revision or a newer one is in the
// kernel: wholly, or, when services are named, as far as those are concerned. When
// it was tried and something of that was refused, the error lists it. Sync daemons
// do not count, nor, when services are named, what is not known of others until the
// kernel has been read. Without an outcome it returns with ctx's error.
func (l *Loop) WaitApplied(ctx context.Context, revision uint64, services ...ipvs.ServiceKey) error {
	named := map[ipvs.ServiceKey]bool{}
	for _, k := range services {
		named[k] = true
	}
	return l.wait(ctx, fmt.Sprintf("wait for revision %d in the kernel", revision), func() (bool, error) {
		if l.status.AppliedRevision >= revision || len(named) > 0 && l.carried >= revision && !meet(named, l.open) {
			return true, nil
		}
		if l.tried < revision || len(l.refused) == 0 { // without refusals the kernel will be looked at again
			return false, nil
		}
		refused := l.refused
		if len(named) > 0 {
			refused = slices.DeleteFunc(slices.Clone(refused), func(r refusal) bool {
				return r.key != ipvs.ServiceKey{} && !named[r.key]
			})
		}
		return true, fault.Join(listed(refused), MaxListed, len(refused))
	})
}

// meet reports whether two sets have something in common.
func meet(a, b map[ipvs.ServiceKey]bool) bool {
	for k := range a {
		if b[k] {
			return true
		}
	}
	return false
}

// wait calls done, with l.mu held, until it returns true, and returns its error.
func (l *Loop) wait(ctx context.Context, what string, done func() (bool, error)) error {
	for {
		l.mu.Lock()
		ok, err := done()
		changed := l.changed
		l.mu.Unlock()
		if ok {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}

// outcome is what one round found and did.
type outcome struct {
	full     bool                     // a look at the whole kernel has ended in it, and tells all
	ticket   uint64                   // of that look: how many were asked for when it began
	read     time.Time                // when the whole kernel was read last
	foreign  []ipvs.ServiceKey        // found then
	drift    int                      // objects repaired
	served   bool                     // the role is carried out, as far as it could be
	tried    bool                     // the table is carried out but for refused
	known    bool                     // a look is to come, and the table is carried out but for open
	open     map[ipvs.ServiceKey]bool // the services of which it is to tell
	surprise bool                     // the kernel is not known, or not as believed: a look is to come before it is called converged
	refused  []refusal                // in the table and timeouts; without Since
	daemons  []ipvs.Daemon
	daemon   error // why the sync daemons are not as wanted
}

// publish merges the outcome of a round into the status. It reports whether a full
// round is still asked for.
func (l *Loop) publish(revision, number uint64, o outcome) (asked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	s := l.status
	if o.served {
		s.Seen = max(s.Seen, number)
	}
	if len(o.refused) == 0 && !o.surprise {
		s.AppliedRevision = revision
	}
	s.Foreign, s.ForeignCount = o.foreign[:min(len(o.foreign), MaxListed)], len(o.foreign)
	s.LastFull = o.read
	s.DriftRepaired += uint64(o.drift)
	count := s.tell(o.refused, o.daemons, o.daemon)
	fresh := fault.Date(s.Errors, l.status.Errors, now)
	s.Converged = count == 0 && !o.surprise
	l.logErrors(fresh, s.ErrorCount, l.status.ErrorCount)
	l.status = s
	l.shown = o.refused
	l.carried, l.open = 0, o.open
	if o.known {
		l.carried = revision
	}
	if o.tried {
		l.tried, l.refused = revision, o.refused
	}
	if o.full {
		l.fullDone = o.ticket
	}
	l.announce()
	return l.fullWanted > l.fullDone
}

// publishRole tells, in the middle of a round, what became of the role of the value
// number.
func (l *Loop) publishRole(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.Seen = max(s.Seen, number)
	s.tell(l.shown, l.believed.daemons.Daemons, l.believed.daemons.Err)
	fresh := fault.Date(s.Errors, l.status.Errors, time.Now())
	s.Converged = s.Converged && s.ErrorCount == 0
	l.logErrors(fresh, s.ErrorCount, l.status.ErrorCount)
	l.status = s
	l.announce()
}

// tell lists what is refused and what the daemons are, and returns how many errors that
// makes.
func (s *Status) tell(refused []refusal, daemons []ipvs.Daemon, daemon error) int {
	if daemon != nil {
		refused = append(slices.Clip(refused), refusalOf("sync daemons", daemon))
	}
	s.Daemons, s.Errors, s.ErrorCount = daemons, listed(refused), len(refused)
	return s.ErrorCount
}

// announce wakes those who wait for a change of the status. The caller holds l.mu.
func (l *Loop) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// logErrors logs what is new: one line a round.
func (l *Loop) logErrors(fresh []fault.Fault, count, before int) {
	switch {
	case len(fresh) > 0:
		l.log.Warn("the kernel is not as desired", "objects", count, "new", len(fresh), "error", fault.Join(fresh, loggedObjects, len(fresh)))
	case count == 0 && before > 0:
		l.log.Info("the kernel is as desired again")
	}
}
