package ipvs

import (
	"bytes"
	"iter"
	"slices"

	"github.com/hashicorp/go-immutable-radix/v2"
)

// Limits of what a table remembers of those before it, which it keeps in memory.
const (
	maxEdits    = 64
	maxEditKeys = 1000
)

// An edit is how a table came to be of another. It is never written to again.
type edit struct {
	from  *iradix.Tree[*Service]
	keys  []ServiceKey // of the services that are not the same object
	prev  *edit        // how from came to be; nil = not known
	depth int          // how many are before it
}

// then returns the edit after e, which may be nil.
func (e *edit) then(from *iradix.Tree[*Service], keys []ServiceKey) *edit {
	next := &edit{from: from, keys: keys}
	if len(keys) > maxEditKeys {
		return nil
	}
	if e != nil && e.depth < maxEdits {
		next.prev, next.depth = e, e.depth+1
	}
	return next
}

// since returns the keys of the services that may not be the same object in from and t,
// in order, and false when t does not know how it came from there.
func (t Table) since(from Table) (keys []ServiceKey, known bool) {
	for e := t.last; e != nil; e = e.prev {
		keys = append(keys, e.keys...)
		if e.from == from.services {
			slices.SortFunc(keys, ServiceKey.Compare)
			return slices.Compact(keys), true
		}
	}
	return nil, false
}

// Unshared yields the services that are not one object in a and b, in the order of
// their keys: what a has and what b has, nil being nothing. It does not look into
// the services, so tables of which one was made from the other by Apply or Replace
// are compared quickly; when b was made from a by a few calls of Apply it costs what
// those have changed, and not what the tables hold.
func Unshared(a, b Table) iter.Seq2[*Service, *Service] {
	return func(yield func(*Service, *Service) bool) {
		if a.services == b.services {
			return
		}
		if keys, known := b.since(a); known {
			for _, k := range keys {
				if x, y := a.Service(k), b.Service(k); x != y && !yield(x, y) {
					return
				}
			}
			return
		}
		left, right := a.cursor(), b.cursor()
		for left.service != nil || right.service != nil {
			order := left.compare(right)
			var x, y *Service
			if order <= 0 {
				x = left.service
				left.next()
			}
			if order >= 0 {
				y = right.service
				right.next()
			}
			if x != y && !yield(x, y) {
				return
			}
		}
	}
}

// cursor walks over the services of a table.
type cursor struct {
	iterator *iradix.Iterator[*Service]
	key      []byte
	service  *Service // nil at the end
}

func (t Table) cursor() *cursor {
	c := &cursor{}
	if t.services != nil {
		c.iterator = t.services.Root().Iterator()
		c.next()
	}
	return c
}

func (c *cursor) next() { c.key, c.service, _ = c.iterator.Next() }

// compare orders by key; the end comes last.
func (c *cursor) compare(o *cursor) int {
	switch {
	case c.service == nil:
		return 1
	case o.service == nil:
		return -1
	}
	return bytes.Compare(c.key, o.key)
}
