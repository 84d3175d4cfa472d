package reconcile

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

var errIgnored = errors.New("the kernel takes these settings but does not keep them; it may be too old for one of them")

// repeated returns the edits that say what had been written since the repair before
// already: either somebody undoes it, or the kernel does not know what they set.
// Kernels ignore attributes that are newer than they are.
func repeated(last, now []ipvs.Change) []ipvs.Change {
	var again []ipvs.Change
	for _, c := range now {
		if (c.Op == ipvs.SetService || c.Op == ipvs.SetDestination) && contains(last, c) {
			again = append(again, c)
		}
	}
	return again
}

// contains reports whether list has an addition or edit with the values of the edit c.
func contains(list []ipvs.Change, c ipvs.Change) bool {
	return slices.ContainsFunc(list, func(o ipvs.Change) bool {
		switch o.Op {
		case ipvs.AddService, ipvs.SetService:
			return c.Op == ipvs.SetService && o.Key == c.Key && reflect.DeepEqual(o.Service, c.Service)
		case ipvs.AddDestination, ipvs.SetDestination:
			return c.Op == ipvs.SetDestination && o.Key == c.Key && reflect.DeepEqual(o.Destination, c.Destination)
		}
		return false
	})
}

// lookAgain reads the kernel once more and takes those of the changes again that it
// has not kept as refused.
func (l *Loop) lookAgain(ctx context.Context, want ipvs.Table, again []ipvs.Change, a *applied) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	have, err := l.kernel.Table(ctx)
	if err != nil {
		return // the next round tells
	}
	needed := MakePlan(have.Bare(), want.Bare(), l.record.owned, false).Changes
	a.done = slices.DeleteFunc(slices.Clone(a.done), func(c ipvs.Change) bool {
		if !contains(again, c) || !contains(needed, c) {
			return false
		}
		a.refuse(c, errIgnored)
		return true
	})
}
