// Package fault says what is not as it should be on a host, and since when.
package fault

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Fault says why one object is not as it should be.
type Fault struct {
	Object  string    // named as its package says
	Message string    // the error
	Since   time.Time // when it was first so
}

// Compare orders by object, then by message.
func (f Fault) Compare(o Fault) int {
	return cmp.Or(cmp.Compare(f.Object, o.Object), cmp.Compare(f.Message, o.Message))
}

// Date sets Since of each in list: those that are in before too, with the same
// message, keep their time, the others get now. It returns the others.
func Date(list, before []Fault, now time.Time) (fresh []Fault) {
	type text struct{ object, message string }
	since := make(map[text]time.Time, len(before))
	for _, f := range before {
		since[text{f.Object, f.Message}] = f.Since
	}
	for i, f := range list {
		list[i].Since = since[text{f.Object, f.Message}]
		if list[i].Since.IsZero() {
			list[i].Since = now
			fresh = append(fresh, list[i])
		}
	}
	return fresh
}

// Join returns an error that lists the first of list, at most limit, and says how many
// more there are of count; nil when count is 0.
func Join(list []Fault, limit, count int) error {
	if count == 0 {
		return nil
	}
	list = list[:min(len(list), limit)]
	errs := make([]error, 0, len(list)+1)
	for _, f := range list {
		errs = append(errs, fmt.Errorf("%s: %s", f.Object, f.Message))
	}
	if more := count - len(list); more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}
