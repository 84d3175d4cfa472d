package reconcile

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

var errIgnored = errors.New("the kernel takes these settings but does not keep them; it may be too old for one of them")

// repeated returns the edits that say what had been written since the repair before
// already: either somebody undoes it, or the kernel does not know what they set.
// Kernels ignore attributes that are newer than they are.
func repeated(last, now []ipvs.Change) []ipvs.Change {
	edit := func(c ipvs.Change) bool { return c.Op == ipvs.SetService || c.Op == ipvs.SetDestination }
	if !slices.ContainsFunc(now, edit) {
		return nil
	}
	before := writtenBy(last)
	var again []ipvs.Change
	for _, c := range now {
		if edit(c) && before.says(c) {
			again = append(again, c)
		}
	}
	return again
}

// An object is a service, or a destination of one.
type object struct {
	service     ipvs.ServiceKey
	destination netip.AddrPort // zero = the service itself
}

func objectOf(c ipvs.Change) object {
	destination, _ := c.Target()
	return object{c.Key, destination}
}

// written is changes by what they are about: there may be as many as the table has
// objects.
type written map[object][]ipvs.Change

func writtenBy(list []ipvs.Change) written {
	w := make(written, len(list))
	for _, c := range list {
		w[objectOf(c)] = append(w[objectOf(c)], c)
	}
	return w
}

// says reports whether there is an addition or edit with the values of the edit c.
func (w written) says(c ipvs.Change) bool {
	return slices.ContainsFunc(w[objectOf(c)], func(o ipvs.Change) bool {
		switch o.Op {
		case ipvs.AddService, ipvs.SetService:
			return c.Op == ipvs.SetService && reflect.DeepEqual(o.Service, c.Service)
		case ipvs.AddDestination, ipvs.SetDestination:
			return c.Op == ipvs.SetDestination && reflect.DeepEqual(o.Destination, c.Destination)
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
	needed := writtenBy(MakePlan(have, want, l.record.owned, false).Changes)
	undone := writtenBy(again)
	a.done = slices.DeleteFunc(slices.Clone(a.done), func(c ipvs.Change) bool {
		if !undone.says(c) || !needed.says(c) {
			return false
		}
		a.refuse(c, errIgnored)
		return true
	})
}
