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
func repeated(last written, now []ipvs.Change) []ipvs.Change {
	edit := func(c ipvs.Change) bool { return c.Op == ipvs.SetService || c.Op == ipvs.SetDestination }
	var again []ipvs.Change
	for _, c := range now {
		if edit(c) && last.says(c) {
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

// written is the newest addition or edit of each object, by service and address; the
// zero address is the service itself. However many changes are made, it is not larger
// than the table.
type written map[ipvs.ServiceKey]map[netip.AddrPort]ipvs.Change

func writtenBy(list []ipvs.Change) written {
	w := written{}
	w.add(list)
	return w
}

func (w written) add(list []ipvs.Change) {
	for _, c := range list {
		address, _ := c.Target()
		switch {
		case c.Op == ipvs.DeleteService:
			delete(w, c.Key)
		case c.Op == ipvs.DeleteDestination:
			delete(w[c.Key], address)
			if len(w[c.Key]) == 0 {
				delete(w, c.Key)
			}
		default:
			if w[c.Key] == nil {
				w[c.Key] = map[netip.AddrPort]ipvs.Change{}
			}
			w[c.Key][address] = c
		}
	}
}

// says reports whether the edit c has the values that were written last.
func (w written) says(c ipvs.Change) bool {
	address, _ := c.Target()
	last, ok := w[c.Key][address]
	switch {
	case !ok:
		return false
	case c.Op == ipvs.SetService:
		return reflect.DeepEqual(last.Service, c.Service)
	case c.Op == ipvs.SetDestination:
		return reflect.DeepEqual(last.Destination, c.Destination)
	}
	return false
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
