package ipvs

import (
	"iter"

	"github.com/hashicorp/go-immutable-radix/v2"
)

// Table is a virtual service table: all services and the settings that belong to
// them. It is immutable, cheap to copy and safe for concurrent use; Apply returns a
// new Table that shares the unchanged services, and costs what is changed. The zero
// value is the empty table.
type Table struct {
	sync     Sync
	timeouts Timeouts
	vips     VIPs                   // normalized
	services *iradix.Tree[*Service] // by ServiceKey.sortable; nil = none. What it holds is never written to
	last     *edit                  // how services came to be; nil = not known
	counts   counts                 // of the services
	hosts    *byte                  // another one after each change of what VIPs finds among the services
}

// counts are what the rules about all services need, kept so that a change need not
// look at the others.
type counts struct {
	destinations int
	mixed        int // services that have a destination of another family
}

// add counts s, nil being none, n times.
func (c *counts) add(s *Service, n int) {
	if s == nil {
		return
	}
	c.destinations += n * len(s.Destinations)
	if _, mixed := s.MixedFamilies(); mixed {
		c.mixed += n
	}
}

// TableOf returns a table of services as they are, in canonical form but not
// validated: a kernel may hold what this package would refuse. Of two services
// with one key the last counts.
func TableOf(services ...Service) Table {
	b := Builder{}
	for _, s := range services {
		n := s.Normalize()
		b.Set(&n)
	}
	return b.Table()
}

// Builder makes a table as TableOf does, but of one service after the other, and
// without copying them: for large tables, whose services come that way. The zero value
// has none.
type Builder struct {
	services *iradix.Txn[*Service]
	counts   counts
}

// Set adds s, which is in canonical form, see Service.Normalize, and which nobody
// writes to any more. Of two services with one key the last counts.
func (b *Builder) Set(s *Service) {
	if b.services == nil {
		b.services = iradix.New[*Service]().Txn()
	}
	old, _ := b.services.Insert(s.Key.sortable(nil), s)
	b.counts.add(old, -1)
	b.counts.add(s, 1)
}

// Table returns the table of what was added. It ends the use of b.
func (b *Builder) Table() Table {
	if b.services == nil {
		return Table{}
	}
	return Table{services: b.services.CommitOnly(), counts: b.counts, hosts: new(byte)}
}

// Sync returns the settings of connection sync.
func (t Table) Sync() Sync { return t.sync }

// Timeouts returns the connection timeouts.
func (t Table) Timeouts() Timeouts { return t.timeouts }

// Len returns the number of services.
func (t Table) Len() int {
	if t.services == nil {
		return 0
	}
	return t.services.Len()
}

// Destinations returns the number of destinations of all services.
func (t Table) Destinations() int { return t.counts.destinations }

// Services yields the services in the order of their keys. What it yields must not
// be written to.
func (t Table) Services() iter.Seq[*Service] {
	return func(yield func(*Service) bool) {
		if t.services != nil {
			t.services.Root().Walk(func(_ []byte, s *Service) bool { return !yield(s) })
		}
	}
}

// Service returns the service with key k, or nil. It must not be written to.
func (t Table) Service(k ServiceKey) *Service {
	if t.services == nil {
		return nil
	}
	var buffer [maxSortable]byte
	s, _ := t.services.Get(k.sortable(buffer[:0]))
	return s
}

// Bare returns the table as a kernel would hold it: its services in their bare
// form, and no settings.
func (t Table) Bare() Table {
	b := Builder{}
	for s := range t.Services() {
		bare := s.Bare()
		b.Set(&bare)
	}
	return b.Table()
}

// Same reports whether t and o are one table without looking at what is in it.
// Apply and Replace return the table they were called on when nothing changes; of
// other tables that are equal Same says nothing.
func (t Table) Same(o Table) bool {
	return t.services == o.services && t.sync == o.sync && t.timeouts == o.timeouts && t.vips.Equal(o.vips)
}

// Equal reports whether t and o are the same in every service and setting.
func (t Table) Equal(o Table) bool {
	if t.sync != o.sync || t.timeouts != o.timeouts || !t.vips.Equal(o.vips) || t.Len() != o.Len() {
		return false
	}
	for a, b := range Unshared(t, o) {
		if a == nil || b == nil || !a.Equal(b) {
			return false
		}
	}
	return true
}

// Replace returns o as what comes after t: its services that equal one of t are
// that one, so that Unshared yields only what differs. When nothing differs it
// returns t itself.
func (t Table) Replace(o Table) Table {
	var services *iradix.Txn[*Service]
	if t.services == nil {
		services = iradix.New[*Service]().Txn()
	} else {
		services = t.services.Txn()
	}
	next, changed, moved := t, false, false
	for have, want := range Unshared(t, o) {
		switch {
		case want == nil:
			services.Delete(have.Key.sortable(nil))
		case have != nil && have.Equal(want):
			continue
		default:
			services.Insert(want.Key.sortable(nil), want)
		}
		changed, moved = true, moved || hostsDiffer(have, want)
	}
	next.sync, next.timeouts, next.vips, next.counts = o.sync, o.timeouts, o.vips, o.counts
	if changed {
		next.services, next.last = services.CommitOnly(), nil
	}
	if moved {
		next.hosts = o.hosts
	}
	return next
}
