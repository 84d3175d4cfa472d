package reconcile

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

var errIgnored = errors.New("the kernel takes these settings but does not keep them; it may be too old for one of them")

// repeated returns the edits that two repairs in a row have made alike: either
// somebody undoes them, or the kernel does not know what they set. Kernels ignore
// attributes that are newer than they are.
func repeated(last, now []ipvs.Change) []ipvs.Change {
	var again []ipvs.Change
	for _, c := range now {
		if (c.Op == ipvs.SetService || c.Op == ipvs.SetDestination) && contains(last, c) {
			again = append(again, c)
		}
	}
	return again
}

func contains(list []ipvs.Change, c ipvs.Change) bool {
	return slices.ContainsFunc(list, func(o ipvs.Change) bool { return reflect.DeepEqual(o, c) })
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
