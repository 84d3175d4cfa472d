package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// Deadlines for a kernel that does not answer.
const (
	readTimeout  = 10 * time.Minute // for the whole table; each answer has a shorter one in package kernel
	applyTimeout = 30 * time.Second // for a batch of changes, the timeouts or the daemons
	// lookPause is how many times as long as a look took the next one is away, at least:
	// on a large table they would otherwise take the processor from all else.
	lookPause = 10
	// lookRest is how many times as long as each part of a look aside took it rests.
	lookRest      = 3
	loggedObjects = 5 // named in one line of the log
)

// believed is what the loop takes the kernel to hold, from what it read and wrote.
type believed struct {
	known   bool                     // false: the kernel must be read first
	table   ipvs.Table               // the desired table that was carried out last
	failing map[ipvs.ServiceKey]bool // its services that are not as desired; only repair tries them again
	refused []refusal                // what the last repair left undone
	foreign []ipvs.ServiceKey        // found by the last repair
	made    written                  // by the last repair and since
	read    time.Time                // when that had read the kernel

	served  bool // the syncer was called; what follows is of its last call
	role    syncd.Role
	daemon  ipvs.Daemon // as wanted then
	run     bool
	daemons syncd.Status // its answer
}

// round makes the kernel equal to d. found is a look that is done, nil for none. asked
// demands one: when the kernel is known it is made aside, so that neither changes nor the
// daemons wait for it, and else here. ticket is the number of the newest that is asked
// for; outcome.full says that one was made, or tried, and outcome.ticket which.
//
// The table comes before the daemons, since a backup binds the connections that it
// receives only to services that exist. When no daemon may run they come first:
// while one runs, the kernel refuses destinations of another family. Between two parts
// of a large table the newest role is carried out, so that it never waits for all of it.
func (l *Loop) round(ctx context.Context, d Desired, found *look, asked bool, ticket uint64) outcome {
	now := time.Now()
	before := l.believed
	before.failing = maps.Clone(before.failing)
	want, run := syncd.Want(d.Role, d.Table.Sync(), d.Cluster, d.Interface)
	changed := want != l.believed.daemon || run != l.believed.run
	full := !l.believed.known
	daemons := full || found != nil || changed || !l.rounds.daemons.IsZero() && !now.Before(l.rounds.daemons)
	var o outcome
	if daemons && !run {
		l.reconcileDaemons(ctx, d)
	}
	if l.believed.known {
		o.surprise = l.change(ctx, d, found)
	}
	switch {
	case full || o.surprise:
		l.forget()
		found = nil
		l.repair(ctx, d, before, l.look(ctx, d, ticket), &o)
	case found != nil && !changed: // else the daemons do not wait for it
		l.repair(ctx, d, before, found, &o)
		found = nil
	}
	if daemons && run {
		now := d
		newest, _ := l.newest()
		now.Role = newest.Role
		l.reconcileDaemons(ctx, now)
	}
	switch {
	case found != nil:
		l.repair(ctx, d, before, found, &o)
	case !o.full && l.looking == nil && !changed && (asked || !now.Before(l.rounds.full)):
		l.lookAside(ctx, d, ticket)
	}
	o.drift, l.drifted = l.drifted, 0
	o.refused, o.foreign, o.read = l.believed.refused, l.believed.foreign, l.believed.read
	o.daemons, o.daemon = l.believed.daemons.Daemons, l.believed.daemons.Err
	return o
}

// change carries out what differs between the table that was carried out last and
// that of d, without reading the kernel. It reports whether the kernel must be read,
// because something was refused or not as believed, or because d changes a service
// that was failing.
func (l *Loop) change(ctx context.Context, d Desired, found *look) (surprise bool) {
	from, want := l.believed.table, d.Table
	changes := slices.DeleteFunc(changesBetween(from, want), func(c ipvs.Change) bool {
		surprise = surprise || l.believed.failing[c.Key]
		return l.believed.failing[c.Key]
	})
	l.believed.table = want
	for _, k := range []*look{l.looking, found} {
		k.touch(changes)
	}
	var claim []ipvs.ServiceKey
	for _, c := range changes {
		if c.Op == ipvs.AddService {
			claim = append(claim, c.Key)
		}
	}
	changes, _, err := l.claim(changes, claim)
	a := l.apply(ctx, d, changes)
	l.believed.made.add(a.done)
	l.release(a.done)
	for _, k := range a.failing {
		l.believed.failing[k] = true
	}
	if from.Timeouts() != want.Timeouts() {
		_, timeoutsErr := l.reconcileTimeouts(ctx, want.Timeouts())
		surprise = surprise || timeoutsErr != nil
	}
	return surprise || err != nil || len(a.refused) > 0 || a.surprise
}

// repair makes the kernel equal to d's table by what a look has found, which it waits
// for. before is what was believed when the round began.
func (l *Loop) repair(ctx context.Context, d Desired, before believed, found *look, o *outcome) {
	want := d.Table
	l.believed.known, l.believed.refused = false, nil
	o.full, o.ticket, o.surprise = true, found.ticket, false
	<-found.done
	defer func() {
		l.rounds.repaired(len(l.believed.refused) > 0 || o.surprise, max(l.interval, lookPause*found.took), l.spread)
	}()
	if found.err != nil {
		l.believed.refused = []refusal{refusalOf("table", fmt.Errorf("read the kernel's table: %w", found.err))}
		return
	}
	found.settle()
	plan := found.plan
	l.believed.foreign, l.believed.read = plan.Foreign, found.read
	changes, unclaimed, claimErr := l.claim(plan.Changes, plan.Claim)
	a := l.apply(ctx, d, changes)
	l.believed.made = found.unseen(before.made)
	l.believed.made.add(a.done)
	if again := repeated(before.made, a.done); len(again) > 0 {
		l.lookAgain(ctx, want, again, &a)
	}
	o.surprise = a.surprise
	l.release(a.done)
	timed, timeoutsErr := l.reconcileTimeouts(ctx, want.Timeouts())

	l.believed.refused = a.refused
	for object, err := range map[string]error{"timeouts": timeoutsErr, "ownership record": claimErr} {
		if err != nil {
			l.believed.refused = append(l.believed.refused, refusalOf(object, err))
		}
	}
	slices.SortStableFunc(l.believed.refused, func(a, b refusal) int { return a.Compare(b.Fault) })
	l.believed.known, l.believed.table, l.believed.failing = !a.stalled, want, map[ipvs.ServiceKey]bool{}
	for _, k := range append(unclaimed, a.failing...) {
		l.believed.failing[k] = true
	}
	retimed := timed && want.Timeouts() == before.table.Timeouts() &&
		!slices.ContainsFunc(before.refused, func(r refusal) bool { return r.Object == "timeouts" })
	l.drifted += l.countDrift(before, want, a.done, retimed)
}

// countDrift returns how many of the changes set right what somebody else had
// changed, and logs them. What the table itself has changed since is none, nor is
// what had been refused.
func (l *Loop) countDrift(before believed, want ipvs.Table, done []ipvs.Change, timed bool) int {
	if !before.known {
		if len(done) > 0 {
			l.log.Info("the kernel is programmed", "changes", len(done))
		}
		return 0
	}
	asked := map[object]bool{}
	if len(done) > 0 {
		for _, c := range changesBetween(before.table, want) {
			asked[objectOf(c)] = true
		}
	}
	var names []string
	for _, c := range done {
		added := want.Service(c.Key) != nil && before.table.Service(c.Key) == nil
		if !before.failing[c.Key] && !added && !asked[objectOf(c)] {
			names = append(names, c.String())
		}
	}
	if timed {
		names = append(names, string(ipvs.SetTimeouts))
	}
	if len(names) > 0 {
		l.log.Warn("somebody else changed the kernel's table; it is repaired", "objects", len(names), "changes", names[:min(len(names), loggedObjects)])
	}
	return len(names)
}

// claim records keys as owned and returns changes. When that fails it returns only
// the changes of other services, the keys that are not owned now, and the error.
func (l *Loop) claim(changes []ipvs.Change, keys []ipvs.ServiceKey) ([]ipvs.Change, []ipvs.ServiceKey, error) {
	err := l.record.claim(keys)
	if err == nil {
		return changes, nil, l.record.flush()
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(k ipvs.ServiceKey) bool { return l.record.owned[k] })
	unclaimed := map[ipvs.ServiceKey]bool{}
	for _, k := range keys {
		unclaimed[k] = true
	}
	changes = slices.DeleteFunc(slices.Clone(changes), func(c ipvs.Change) bool { return unclaimed[c.Key] })
	return changes, keys, fmt.Errorf("%d services are not programmed: %w", len(keys), err)
}

// release takes the services that were deleted off the record. A failure is
// retried, and reported then, by the next claim.
func (l *Loop) release(done []ipvs.Change) {
	var gone []ipvs.ServiceKey
	for _, c := range done {
		if c.Op == ipvs.DeleteService {
			gone = append(gone, c.Key)
		}
	}
	if err := l.record.release(gone); err != nil {
		l.log.Warn("ownership record", "error", err)
	}
}

// reconcileTimeouts sets the timeouts that want names, when the kernel has others,
// and reports whether it did.
func (l *Loop) reconcileTimeouts(ctx context.Context, want ipvs.Timeouts) (changed bool, err error) {
	if want == (ipvs.Timeouts{}) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	have, err := l.kernel.Timeouts(ctx)
	if err != nil || hasTimeouts(have, want) {
		return false, err
	}
	if err := l.kernel.SetTimeouts(ctx, want); err != nil {
		return false, err
	}
	if have, err = l.kernel.Timeouts(ctx); err == nil && !hasTimeouts(have, want) {
		err = fmt.Errorf("the kernel has %+v after setting %+v", have, want)
	}
	return true, err
}

// hasTimeouts reports whether have is what want sets.
func hasTimeouts(have, want ipvs.Timeouts) bool {
	return (want.TCP == 0 || have.TCP == want.TCP) &&
		(want.TCPFin == 0 || have.TCPFin == want.TCPFin) &&
		(want.UDP == 0 || have.UDP == want.UDP)
}

// rounds says when what is due.
type rounds struct {
	full    time.Time // to read the whole kernel; zero before the first round
	daemons time.Time // to look at the sync daemons alone; zero = with the next full round
	failing int       // full rounds in a row that left something undone
	deaf    int       // looks at the sync daemons in a row that left them not as wanted
}

// next returns the time of the next round.
func (r *rounds) next() time.Time {
	switch {
	case r.full.IsZero():
		return time.Now().Add(time.Hour) // nothing is due before the first Set
	case !r.daemons.IsZero() && r.daemons.Before(r.full):
		return r.daemons
	}
	return r.full
}

// repaired plans the next full round.
func (r *rounds) repaired(failed bool, interval time.Duration, spread func(time.Duration) time.Duration) {
	wait := interval
	r.failing++
	if failed {
		wait = backoff(r.failing, interval)
	} else {
		r.failing = 0
	}
	r.full = time.Now().Add(spread(wait))
}

// synced plans the next look at the sync daemons.
func (r *rounds) synced(status syncd.Status, interval time.Duration, spread func(time.Duration) time.Duration) {
	r.daemons = status.Again
	if status.Err == nil {
		r.deaf = 0
		return
	}
	r.deaf++
	retry := time.Now().Add(spread(backoff(r.deaf, interval)))
	if r.daemons.IsZero() || retry.Before(r.daemons) {
		r.daemons = retry
	}
}

// backoff returns how long to wait after n failures in a row: 100 ms, doubling, at
// most 1 min or limit.
func backoff(n int, limit time.Duration) time.Duration {
	return min(100*time.Millisecond<<min(n-1, 10), time.Minute, limit)
}
