package reconcile

import (
	"errors"
	"net/netip"
	"reflect"

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

// doubts are edits that were repeated, for the next look: those that it misses again
// the kernel does not keep.
type doubts struct {
	edits []ipvs.Change
	drift []ipvs.Change // those of them that set right what somebody changed, if they are kept
}

// settle returns those of the edits that the look after them misses, and the others of
// drift. Of services that were touched the look says nothing.
func (d doubts) settle(plan []ipvs.Change, touched func(ipvs.ServiceKey) bool) (ignored, kept []ipvs.Change) {
	if len(d.edits) == 0 {
		return nil, nil
	}
	needed := writtenBy(plan)
	for _, c := range d.edits {
		if !touched(c.Key) && needed.says(c) {
			ignored = append(ignored, c)
		}
	}
	for _, c := range d.drift {
		if !touched(c.Key) && !needed.says(c) {
			kept = append(kept, c)
		}
	}
	return ignored, kept
}
