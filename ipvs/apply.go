package ipvs

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// Apply returns the table after changes, or an error and no table: all or nothing.
// Each change is checked in its turn; rules between objects (limits, address
// families) are checked on the result. Errors match os.ErrExist when something to
// add is there, os.ErrNotExist when something to set or delete is not, and
// ErrInvalid otherwise.
func (t Table) Apply(changes ...Change) (Table, error) {
	e := editor{table: t, own: map[ServiceKey]*Service{}}
	for i, c := range changes {
		if err := e.apply(c); err != nil {
			if len(changes) > 1 {
				return Table{}, fmt.Errorf("change %d: %w", i+1, err)
			}
			return Table{}, err
		}
	}
	if err := e.table.checkWhole(); err != nil {
		return Table{}, err
	}
	return e.table, nil
}

// editor applies changes to a copy. The services it has copied already are its
// own and may be written to.
type editor struct {
	table  Table
	copied bool // table.services is our own slice
	own    map[ServiceKey]*Service
}

func (e *editor) apply(c Change) error {
	switch c.Op {
	case SetSync:
		if c.Sync == nil {
			return invalidf("%s: the settings are missing", c)
		}
		e.table.sync = *c.Sync
		return c.Sync.Validate()
	case SetTimeouts:
		if c.Timeouts == nil {
			return invalidf("%s: the timeouts are missing", c)
		}
		e.table.timeouts = *c.Timeouts
		return c.Timeouts.Validate()
	case SetVIPs:
		if c.VIPs == nil {
			return invalidf("%s: the addresses are missing", c)
		}
		e.table.vips = c.VIPs.normalize()
		return c.VIPs.Validate()
	case AddService, SetService, DeleteService:
		return e.applyService(c)
	case AddDestination, SetDestination, DeleteDestination:
		return e.applyDestination(c)
	}
	return invalidf("unknown operation %q", c.Op)
}

func (e *editor) applyService(c Change) error {
	i, exists := e.table.find(c.Key)
	switch {
	case c.Op == AddService && exists:
		return &presenceError{fmt.Sprintf("add %s: the virtual service exists already", c.Key), os.ErrExist}
	case c.Op != AddService && !exists:
		return noService(c)
	}
	if c.Op == DeleteService {
		e.ownSlice()
		e.table.services = slices.Delete(e.table.services, i, i+1)
		delete(e.own, c.Key)
		return nil
	}
	if c.Service == nil || c.Service.Key != c.Key {
		return invalidf("%s: the service is missing or has another key", c)
	}
	if len(c.Service.Destinations) > 0 {
		return invalidf("%s: destinations are changed one by one", c)
	}
	s := c.Service.Normalize()
	if err := s.Validate(); err != nil {
		return named(c.Key.String(), err)
	}
	if c.Op == AddService {
		e.ownSlice()
		e.table.services = slices.Insert(e.table.services, i, &s)
		e.own[c.Key] = &s
		return nil
	}
	own := e.ownService(i)
	s.Destinations = own.Destinations
	*own = s
	if err := s.checkDestinations(); err != nil {
		return named(c.Key.String(), err)
	}
	return nil
}

func (e *editor) applyDestination(c Change) error {
	addr, ok := c.Target()
	if !ok {
		return invalidf("%s: the destination is missing", c)
	}
	i, exists := e.table.find(c.Key)
	if !exists {
		return noService(c)
	}
	s := e.ownService(i)
	at, exists := s.find(addr)
	switch {
	case c.Op == AddDestination && exists:
		return &presenceError{fmt.Sprintf("add %s to %s: the destination exists already", addr, c.Key), os.ErrExist}
	case c.Op != AddDestination && !exists:
		return &presenceError{fmt.Sprintf("%s: no destination %s", c.Key, addr), os.ErrNotExist}
	}
	if c.Op == DeleteDestination {
		s.Destinations = slices.Delete(s.Destinations, at, at+1)
		if len(s.Destinations) == 0 {
			s.Destinations = nil
		}
		return nil
	}
	if err := c.Destination.validateIn(s); err != nil {
		return named(fmt.Sprintf("%s destination %s", c.Key, addr), err)
	}
	if c.Op == AddDestination {
		s.Destinations = slices.Insert(s.Destinations, at, *c.Destination)
	} else {
		s.Destinations[at] = *c.Destination
	}
	return nil
}

// ownSlice makes the slice of services our own.
func (e *editor) ownSlice() {
	if !e.copied {
		e.table.services = slices.Clone(e.table.services)
		e.copied = true
	}
}

// ownService makes the service at i our own and returns it.
func (e *editor) ownService(i int) *Service {
	s := e.table.services[i]
	if e.own[s.Key] == s {
		return s
	}
	clone := *s
	clone.Destinations = slices.Clone(s.Destinations)
	e.ownSlice()
	e.table.services[i] = &clone
	e.own[s.Key] = &clone
	return &clone
}

func noService(c Change) error {
	return &presenceError{fmt.Sprintf("no virtual service %s", c.Key), os.ErrNotExist}
}

// presenceError matches os.ErrExist or os.ErrNotExist without their text, which is
// about files.
type presenceError struct {
	text string
	is   error
}

func (e *presenceError) Error() string        { return e.text }
func (e *presenceError) Is(target error) bool { return target == e.is }

// named puts the name of an object before each of the errors that err joins.
func named(object string, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", object, err)
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, fmt.Errorf("%s: %w", object, e))
	}
	return errors.Join(errs...)
}

// checkWhole checks the rules between objects.
func (t Table) checkWhole() error {
	var errs []error
	if len(t.services) > MaxServices {
		errs = append(errs, invalidf("%d services, the limit is %d", len(t.services), MaxServices))
	}
	destinations := 0
	for _, s := range t.services {
		destinations += len(s.Destinations)
		if d, mixed := s.MixedFamilies(); mixed && !t.sync.Disabled {
			errs = append(errs, invalidf("%s destination %s: %s in an %s service is %s",
				s.Key, d.Addr, FamilyOf(d.Addr.Addr()), s.Key.Family, mixedReason))
		}
	}
	if destinations > MaxDestinations {
		errs = append(errs, invalidf("%d destinations, the limit is %d", destinations, MaxDestinations))
	}
	return errors.Join(errs...)
}

const mixedReason = "possible only with sync: {enabled: false}; the kernel cannot sync such connections"
