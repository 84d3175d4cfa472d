package reconcile

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// A look at the whole kernel, and what it says is to be done. Its reading takes
// seconds when the table is large, so that roles and changes are carried out beside it;
// of the services that they touch it says nothing.
type look struct {
	desired Desired                  // what the kernel is compared with
	ticket  uint64                   // how many full rounds had been asked for when it began
	urgent  bool                     // it began because of a surprise, or nothing was known
	touched map[ipvs.ServiceKey]bool // since it began
	retold  map[ipvs.ServiceKey]bool // wanted otherwise since it began, but not written to
	doubts  doubts                   // that it settles
	kept    []ipvs.Change            // of what was doubted, drift that is repaired
	cancel  context.CancelFunc
	done    chan struct{} // closed when what follows is there

	have ipvs.Table // what the kernel held
	plan Plan
	read time.Time     // when the kernel had been read
	took time.Duration // to read and compare
	err  error
}

// look begins to read the kernel; a later round gets the outcome. The goroutine ends
// with ctx; Run waits for it.
func (l *Loop) look(ctx context.Context, d Desired, ticket uint64, opts ...kernel.TableOption) *look {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	k := &look{
		desired: d, ticket: ticket, touched: map[ipvs.ServiceKey]bool{}, retold: map[ipvs.ServiceKey]bool{}, doubts: l.doubts,
		cancel: cancel, done: make(chan struct{}),
	}
	l.doubts = doubts{}
	l.rounds.full = time.Now().Add(time.Hour) // planned anew when it is done
	owned := maps.Clone(l.record.owned)
	l.readers.Go(func() {
		defer close(k.done)
		defer cancel()
		began := time.Now()
		defer func() { k.took = time.Since(began) }()
		have, err := l.kernel.Table(ctx, opts...)
		if k.read, k.err = time.Now(), err; err == nil {
			// A cluster that has never had a table owns nothing, so that an exclusive director
			// which founds one does not empty its kernel.
			k.have = have
			k.plan = MakePlan(have, d.Table, owned, l.exclusive && d.Revision > 0)
		}
	})
	return k
}

// lookAside begins a look that nobody waits for: it leaves the processors to those who
// do, changes and the lease.
func (l *Loop) lookAside(ctx context.Context, d Desired, ticket uint64) {
	l.looking = l.look(ctx, d, ticket, kernel.Rest(lookRest))
}

// lookNow begins a look that what is wanted waits for.
func (l *Loop) lookNow(ctx context.Context, d Desired, ticket uint64) {
	l.looking = l.look(ctx, d, ticket)
	l.looking.urgent = true
	l.pending = false
}

// surprised has a look begin that sees what is not as believed. One that began for a
// surprise before goes on: were it given up each time, none would ever end.
func (l *Loop) surprised() {
	l.believed.surprise, l.pending = true, true
	if l.looking != nil && !l.looking.urgent {
		l.forget()
	}
}

// lookedAside is closed when a look is done; nil while there is none.
func (l *Loop) lookedAside() <-chan struct{} {
	if l.looking == nil {
		return nil
	}
	return l.looking.done
}

// forget gives a look up that is under way.
func (l *Loop) forget() {
	if l.looking != nil {
		l.looking.cancel()
		l.looking = nil
	}
}

// touch notes that changes are carried out after the look began; nil does nothing.
func (k *look) touch(changes []ipvs.Change) {
	if k == nil {
		return
	}
	for _, c := range changes {
		k.touched[c.Key] = true
	}
}

// retell notes that a service is wanted otherwise and was not written to, so that the
// look will still tell what to do about it. It returns false when it cannot.
func (k *look) retell(key ipvs.ServiceKey) bool {
	if k == nil || k.touched[key] {
		return false
	}
	k.retold[key] = true
	return true
}

// replan compares the services that are wanted otherwise with what is wanted now.
func (k *look) replan(want ipvs.Table, owned map[ipvs.ServiceKey]bool, exclusive bool) {
	var have, wanted []ipvs.Service
	ours := map[ipvs.ServiceKey]bool{}
	for key := range k.retold {
		if s := k.have.Service(key); s != nil {
			have = append(have, *s)
		}
		if s := want.Service(key); s != nil {
			wanted = append(wanted, *s)
		}
		if owned[key] {
			ours[key] = true
		}
	}
	retold := func(key ipvs.ServiceKey) bool { return k.retold[key] }
	p := MakePlan(ipvs.TableOf(have...), ipvs.TableOf(wanted...), ours, exclusive)
	k.plan.Changes = append(p.Changes, slices.DeleteFunc(k.plan.Changes, func(c ipvs.Change) bool { return retold(c.Key) })...)
	k.plan.Claim = append(p.Claim, slices.DeleteFunc(k.plan.Claim, retold)...)
	k.plan.Foreign = append(p.Foreign, slices.DeleteFunc(k.plan.Foreign, retold)...)
}

// settle leaves of the plan what is about services that were not touched. It returns
// the edits that the kernel does not keep, which are not in the plan either.
func (k *look) settle() (ignored []ipvs.Change) {
	touched := func(key ipvs.ServiceKey) bool { return k.touched[key] }
	if len(k.touched) > 0 {
		k.plan.Changes = slices.DeleteFunc(k.plan.Changes, func(c ipvs.Change) bool { return touched(c.Key) })
		k.plan.Claim = slices.DeleteFunc(k.plan.Claim, touched)
		k.plan.Foreign = slices.DeleteFunc(k.plan.Foreign, touched)
	}
	ignored, k.kept = k.doubts.settle(k.plan.Changes, touched)
	not := writtenBy(ignored)
	k.plan.Changes = slices.DeleteFunc(k.plan.Changes, not.says)
	return ignored
}

// unseen returns what was written to services of which the look says nothing.
func (k *look) unseen(made written) written {
	left := written{}
	for key := range k.touched {
		if objects, ok := made[key]; ok {
			left[key] = objects
		}
	}
	return left
}
