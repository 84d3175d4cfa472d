package ipvs

import (
	"iter"
	"slices"
)

// Table is a virtual service table: all services and the settings that belong to
// them. It is immutable and safe for concurrent use; Apply returns a new Table
// that shares the unchanged services. The zero value is the empty table.
type Table struct {
	sync     Sync
	timeouts Timeouts
	vips     VIPs       // normalized
	services []*Service // sorted by key, no key twice; never written after the Table is made
}

// TableOf returns a table of services as they are, in canonical form but not
// validated: a kernel may hold what this package would refuse. Of two services
// with one key the last counts.
func TableOf(services ...Service) Table {
	var t Table
	for _, s := range services {
		n := s.Normalize()
		t.services = append(t.services, &n)
	}
	slices.SortStableFunc(t.services, func(a, b *Service) int { return a.Key.Compare(b.Key) })
	slices.Reverse(t.services)
	t.services = slices.CompactFunc(t.services, func(a, b *Service) bool { return a.Key == b.Key })
	slices.Reverse(t.services)
	return t
}

// Sync returns the settings of connection sync.
func (t Table) Sync() Sync { return t.sync }

// Timeouts returns the connection timeouts.
func (t Table) Timeouts() Timeouts { return t.timeouts }

// Len returns the number of services.
func (t Table) Len() int { return len(t.services) }

// Services yields the services in the order of their keys. What it yields must not
// be written to.
func (t Table) Services() iter.Seq[*Service] { return slices.Values(t.services) }

// Service returns the service with key k, or nil. It must not be written to.
func (t Table) Service(k ServiceKey) *Service {
	i, ok := t.find(k)
	if !ok {
		return nil
	}
	return t.services[i]
}

func (t Table) find(k ServiceKey) (int, bool) {
	return slices.BinarySearchFunc(t.services, k, func(s *Service, k ServiceKey) int { return s.Key.Compare(k) })
}

// Bare returns the table as a kernel would hold it: its services in their bare
// form, and no settings.
func (t Table) Bare() Table {
	bare := Table{services: make([]*Service, len(t.services))}
	for i, s := range t.services {
		b := s.Bare()
		bare.services[i] = &b
	}
	return bare
}

// Equal reports whether t and o are the same in every service and setting.
func (t Table) Equal(o Table) bool {
	return t.sync == o.sync && t.timeouts == o.timeouts && t.vips.Equal(o.vips) &&
		slices.EqualFunc(t.services, o.services, func(a, b *Service) bool { return a == b || a.Equal(b) })
}
