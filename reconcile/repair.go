package reconcile

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// undone is which objects were wanted and not carried out, by service and address; the
// zero address is the service itself. Nil is all of a service. To carry them out later
// repairs no drift.
type undone map[ipvs.ServiceKey]map[netip.AddrPort]bool

func (u undone) note(c ipvs.Change) {
	objects, there := u[c.Key]
	switch {
	case c.Op == ipvs.AddService:
		u[c.Key] = nil
		return
	case !there:
		objects = map[netip.AddrPort]bool{}
		u[c.Key] = objects
	case objects == nil:
		return
	}
	address, _ := c.Target()
	objects[address] = true
}

func (u undone) has(c ipvs.Change) bool {
	objects, there := u[c.Key]
	address, _ := c.Target()
	return there && (objects == nil || objects[address])
}

// repair makes the kernel equal to the table that a look compared it with, which is the
// one that is believed to be there unless nothing is believed. Of services that were
// touched since the look began, everything stays as it is.
func (l *Loop) repair(ctx context.Context, found *look, o *outcome) {
	o.full, o.ticket = true, found.ticket
	defer func() {
		l.rounds.repaired(len(l.believed.refused) > 0 || l.believed.surprise || !l.believed.known, l.interval, found.took, l.spread)
	}()
	if found.err != nil {
		l.believed.refused = []refusal{refusalOf("table", fmt.Errorf("read the kernel's table: %w", found.err))}
		l.believed.surprise, l.pending = true, false
		return
	}
	before := l.believed
	if !before.known {
		l.believed.table = found.desired.Table
	}
	want := found.desired
	want.Table = l.believed.table
	if len(found.retold) > 0 {
		found.replan(want.Table, l.record.owned, l.exclusive && want.Revision > 0)
	}
	ignored := found.settle()
	touched := func(k ipvs.ServiceKey) bool { return found.touched[k] }
	l.believed.foreign, l.believed.read = found.plan.Foreign, found.read
	l.believed.failing, l.believed.undone = map[ipvs.ServiceKey]bool{}, undone{}
	l.believed.refused = slices.DeleteFunc(slices.Clone(before.refused), func(r refusal) bool { return !touched(r.key) })
	for k := range found.touched {
		if before.failing[k] {
			l.believed.failing[k] = true
		}
		if objects, there := before.undone[k]; there {
			l.believed.undone[k] = objects
		}
	}

	a, claimErr := l.write(ctx, want, found.plan.Changes, found.plan.Claim)
	for _, c := range ignored {
		a.refuse(c, errIgnored)
		l.believed.failing[c.Key] = true
		l.believed.undone.note(c)
	}
	l.believed.made = found.unseen(before.made)
	l.believed.made.add(a.done)
	l.believed.made.add(ignored)
	again := repeated(before.made, a.done)
	timed, timeoutsErr := l.reconcileTimeouts(ctx, want.Table.Timeouts())

	l.believed.refused = append(l.believed.refused, a.refused...)
	for object, err := range map[string]error{"timeouts": timeoutsErr, "ownership record": claimErr} {
		if err != nil {
			l.believed.refused = append(l.believed.refused, refusalOf(object, err))
		}
	}
	if timeoutsErr != nil {
		l.believed.undone.note(ipvs.Change{Op: ipvs.SetTimeouts})
	}
	l.believed.known = !a.stalled
	done := a.done
	if timed {
		done = append(slices.Clip(done), ipvs.Change{Op: ipvs.SetTimeouts})
	}
	l.countDrift(before, found, done, again)
	if len(again) > 0 {
		l.doubt(before, again)
	}
	slices.SortStableFunc(l.believed.refused, func(a, b refusal) int { return a.Compare(b.Fault) })
	l.believed.surprise = a.surprise || l.pending
}

// doubt has a look show whether the kernel keeps edits that were repeated. Until then
// those that it did not keep before stay refused.
func (l *Loop) doubt(before believed, again []ipvs.Change) {
	l.pending = true
	objects := map[string]bool{}
	for _, c := range again {
		objects[nameOf(c)] = true
	}
	for _, r := range before.refused {
		if objects[r.Object] {
			l.believed.refused = append(l.believed.refused, r)
			l.believed.failing[r.key] = true
		}
	}
}

// countDrift counts which of the changes that are done set right what somebody else had
// changed, and logs them. What had not been carried out before is none. Of those of again
// it is not known yet whether the kernel keeps them: they count when the look after this
// one, found then, does not miss them.
func (l *Loop) countDrift(before believed, found *look, done, again []ipvs.Change) {
	l.doubts = doubts{edits: again}
	if !before.known {
		if len(done) > 0 {
			l.log.Info("the kernel is programmed", "changes", len(done))
		}
		return
	}
	later := writtenBy(again)
	names := found.kept
	for _, c := range done {
		switch {
		case before.undone.has(c):
		case later.says(c):
			l.doubts.drift = append(l.doubts.drift, c)
		default:
			names = append(names, c)
		}
	}
	if len(names) > 0 {
		l.log.Warn("somebody else changed the kernel's table; it is repaired", "objects", len(names), "changes", names[:min(len(names), loggedObjects)])
	}
	l.drifted += len(names)
}
