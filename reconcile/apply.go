package reconcile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// maxBatch is how many changes are carried out under one deadline, and before a newer
// role is looked for: 0.4 s of a kernel that takes a millisecond for each. Each stage of
// a batch is one call of the kernel; more than some hundreds at once gain nothing.
const maxBatch = 400

// applied says what became of a list of changes.
type applied struct {
	done     []ipvs.Change // that made a difference: the kernel is as they say
	refused  []refusal
	failing  []ipvs.ServiceKey // the services of refused
	undone   []ipvs.Change     // that were refused, or were not needed as they are, or not tried
	found    bool              // what is carried out now was to be added, but was there
	surprise bool              // something was there, or was missing, against belief
	stalled  bool              // the kernel stopped answering; not everything was tried
}

// nameOf returns the name of the object of c in a Status.
func nameOf(c ipvs.Change) string {
	name := c.Key.String()
	if addr, ok := c.Target(); ok {
		name += " destination " + addr.String()
	}
	return name
}

func (a *applied) refuse(c ipvs.Change, err error) {
	r := refusalOf(nameOf(c), err)
	r.key = c.Key
	a.refused = append(a.refused, r)
	a.failing = append(a.failing, c.Key)
}

// apply carries out changes towards d's table, which are in the order of ipvs.Diff, and
// between two batches a newer role. In each batch the services come before their
// destinations, so that those of a service that cannot be added need not be tried.
func (l *Loop) apply(ctx context.Context, d Desired, changes []ipvs.Change) applied {
	var a applied
	missing := map[ipvs.ServiceKey]bool{}
	for len(changes) > 0 && ctx.Err() == nil && !a.stalled {
		batch := changes[:min(len(changes), maxBatch)]
		changes = changes[len(batch):]
		l.applyBatch(ctx, batch, missing, &a)
		if len(changes) > 0 {
			l.serveRole(ctx, d)
		}
	}
	if len(changes) > 0 {
		a.refused = append(a.refused, refusalOf("table", fmt.Errorf("the kernel did not answer within %s: %d changes were not tried", applyTimeout, len(changes))))
	}
	return a
}

// applyBatch carries out one batch. missing are the services that could not be
// added.
func (l *Loop) applyBatch(ctx context.Context, batch []ipvs.Change, missing map[ipvs.ServiceKey]bool, a *applied) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	for _, stage := range [][]ipvs.Op{
		{ipvs.AddService, ipvs.SetService},
		{ipvs.AddDestination, ipvs.SetDestination},
		{ipvs.DeleteDestination},
		{ipvs.DeleteService},
	} {
		var now []ipvs.Change
		for _, c := range batch {
			switch {
			case !slices.Contains(stage, c.Op):
			case missing[c.Key]:
				a.undone = append(a.undone, c)
			default:
				now = append(now, c)
			}
		}
		l.applyStage(ctx, now, missing, a)
	}
	a.stalled = ctx.Err() != nil
}

// applyStage carries out changes that do not need one another. What is there
// already is edited instead of added, and what is gone already is deleted.
func (l *Loop) applyStage(ctx context.Context, changes []ipvs.Change, missing map[ipvs.ServiceKey]bool, a *applied) {
	if len(changes) == 0 {
		return
	}
	var again []ipvs.Change
	errs := l.kernel.Apply(ctx, changes)
	for i, c := range changes {
		var err error
		if errs != nil {
			err = errs[i]
		}
		if err != nil {
			a.undone = append(a.undone, c)
		}
		switch {
		case err == nil && a.found:
		case err == nil:
			a.done = append(a.done, c)
		case c.Op == ipvs.AddService && errors.Is(err, os.ErrExist):
			c.Op = ipvs.SetService
			again = append(again, c)
		case c.Op == ipvs.AddDestination && errors.Is(err, os.ErrExist):
			c.Op = ipvs.SetDestination
			again = append(again, c)
		case (c.Op == ipvs.DeleteService || c.Op == ipvs.DeleteDestination) && errors.Is(err, os.ErrNotExist):
			a.done = append(a.done, c)
		default:
			a.refuse(c, err)
			if c.Op == ipvs.AddService {
				missing[c.Key] = true
			}
		}
	}
	if len(again) > 0 {
		a.surprise, a.found = true, true
		l.applyStage(ctx, again, missing, a)
		a.found = false
	}
}
