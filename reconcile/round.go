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
	known    bool                     // false: the kernel must be read before its table is written to
	table    ipvs.Table               // the desired table that was carried out last
	failing  map[ipvs.ServiceKey]bool // its services that are not as desired; only repair tries them again
	undone   undone                   // what of them is not
	surprise bool                     // it is not all as believed; a look is to show
	refused  []refusal                // what the last repair left undone
	foreign  []ipvs.ServiceKey        // found by the last repair
	made     written                  // by the last repair and since
	read     time.Time                // when that had read the kernel; zero before the first

	served  bool // the syncer was called; what follows is of its last call
	role    syncd.Role
	daemon  ipvs.Daemon // as wanted then
	run     bool
	daemons syncd.Status // its answer
}

// open returns the services of which a look is to tell, while one is to come. It returns
// false when the others are not known either, or when the list is too long to be made in
// every round.
func (b *believed) open() (open map[ipvs.ServiceKey]bool, known bool) {
	if !b.known || !b.surprise || len(b.failing)+len(b.undone) > MaxListed {
		return nil, false
	}
	open = maps.Clone(b.failing)
	for k := range b.undone {
		open[k] = true
	}
	return open, !open[ipvs.ServiceKey{}] && !slices.ContainsFunc(b.refused, ofAll)
}

// ofAll reports whether r is about the table as a whole.
func ofAll(r refusal) bool { return r.key == ipvs.ServiceKey{} }

// round makes the kernel equal to d. found is a look that is done, nil for none. Of a
// kernel that is known what differs from the table before is written, and what found
// says of the rest. Its table is not written to before it is known. asked demands a
// look, and ticket is the number of the newest that is asked for; outcome.full says that
// one was made, or tried, and outcome.ticket which. The looks are made aside: nothing
// here waits for the kernel to be read.
//
// The table comes before the daemons, since a backup binds the connections that it
// receives only to services that exist. When no daemon may run they come first:
// while one runs, the kernel refuses destinations of another family. Between two parts
// of a large table the newest role is carried out, so that it never waits for all of it.
func (l *Loop) round(ctx context.Context, d Desired, found *look, asked bool, ticket uint64) outcome {
	now, settles := time.Now(), found != nil
	want, run := syncd.Want(d.Role, d.Table.Sync(), d.Cluster, d.Interface)
	changed := !l.believed.served || want != l.believed.daemon || run != l.believed.run
	daemons := changed || l.believed.known && settles || !l.rounds.daemons.IsZero() && !now.Before(l.rounds.daemons)
	if !l.believed.known && l.believed.daemons.Err == nil { // else they were refused just now
		daemons = true
	}
	early := !l.believed.known && !settles && !l.believed.served && d.Role == syncd.Standby // see serveRole
	var o outcome
	if daemons && !run {
		l.reconcileDaemons(ctx, d)
	}
	if settles && !l.believed.known {
		l.serveRole(ctx, d)
		l.repair(ctx, found, &o)
		found = nil
	}
	if l.believed.known && !l.change(ctx, d, found) {
		found = nil // what it says is not enough
	}
	if found != nil {
		l.serveRole(ctx, d)
		l.repair(ctx, found, &o)
	}
	if daemons && run && !early {
		latest := d
		newest, _ := l.newest()
		latest.Role = newest.Role
		l.reconcileDaemons(ctx, latest)
	}
	if l.pending {
		o.full = false // the next look tells the rest
	}
	switch {
	case l.looking != nil:
	case l.pending && !asked && now.Before(l.rounds.again):
		l.rounds.full = l.rounds.again
	case l.pending, !l.believed.known && !settles: // one that has failed is repeated in its time
		l.lookNow(ctx, d, ticket)
	case l.believed.known && !settles && !changed && (asked || !now.Before(l.rounds.full)):
		if l.believed.surprise || slices.ContainsFunc(l.believed.refused, ofAll) {
			l.lookNow(ctx, d, ticket) // the status tells of an error until then
		} else {
			l.lookAside(ctx, d, ticket)
		}
	}
	b := &l.believed
	o.served, o.tried = o.full || !b.read.IsZero(), o.full || b.known && !b.surprise
	o.drift, l.drifted = l.drifted, 0
	o.surprise, o.refused, o.foreign, o.read = b.surprise || !b.known, b.refused, b.foreign, b.read
	o.open, o.known = b.open()
	o.daemons, o.daemon = b.daemons.Daemons, b.daemons.Err
	return o
}

// change carries out what differs between the table that was carried out last and
// that of d, without reading the kernel. It has the kernel looked at, at once, when
// something was refused or not as believed, or when d changes a service that was
// failing. It returns false when the kernel is not known any more, because it has
// stopped answering.
func (l *Loop) change(ctx context.Context, d Desired, found *look) (known bool) {
	from, want := l.believed.table, d.Table
	changes := changesBetween(from, want)
	under := l.looking // that is to tell of services that are failing
	if under != nil && !under.urgent {
		under = nil
	}
	surprise := false
	changes = slices.DeleteFunc(changes, func(c ipvs.Change) bool {
		failing := l.believed.failing[c.Key]
		if failing {
			l.believed.undone.note(c)
			l.believed.surprise = true
			surprise = !under.retell(c.Key) && !found.retell(c.Key) || surprise
		}
		return failing
	})
	for _, k := range []*look{l.looking, found} {
		k.touch(changes)
	}
	l.believed.table = want
	var claim []ipvs.ServiceKey
	for _, c := range changes {
		if c.Op == ipvs.AddService {
			claim = append(claim, c.Key)
		}
	}
	var a applied
	var err error
	if len(changes) > 0 { // else the record, when it cannot be written, waits for a repair
		a, err = l.write(ctx, d, changes, claim)
		l.believed.made.add(a.done)
	}
	if from.Timeouts() != want.Timeouts() {
		if _, err := l.reconcileTimeouts(ctx, want.Timeouts()); err != nil {
			l.believed.undone.note(ipvs.Change{Op: ipvs.SetTimeouts})
			surprise = true
		}
	}
	if a.stalled {
		l.believed.known, l.believed.refused, l.pending = false, a.refused, true
		l.forget()
		return false
	}
	if surprise || err != nil || len(a.refused) > 0 || a.surprise {
		l.surprised()
	}
	return true
}

// write carries out changes towards d's table once the services of claim are recorded as
// owned, and notes what is not carried out. The error is that of the record.
func (l *Loop) write(ctx context.Context, d Desired, changes []ipvs.Change, claim []ipvs.ServiceKey) (applied, error) {
	claimed, unclaimed, err := l.claim(changes, claim)
	for _, k := range unclaimed {
		l.believed.failing[k] = true
	}
	if len(unclaimed) > 0 {
		for _, c := range changes {
			if l.believed.failing[c.Key] {
				l.believed.undone.note(c)
			}
		}
	}
	a := l.apply(ctx, d, claimed)
	l.release(a.done)
	for _, k := range a.failing {
		l.believed.failing[k] = true
	}
	for _, c := range a.undone {
		l.believed.undone.note(c)
	}
	return a, err
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
