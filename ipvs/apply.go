package ipvs

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/hashicorp/go-immutable-radix/v2"
)

// Apply returns the table after changes, or an error and no table: all or nothing.
// Each change is checked in its turn; rules between objects (limits, address
// families) are checked on the result. Errors match os.ErrExist when something to
// add is there, os.ErrNotExist when something to set or delete is not, and
// ErrInvalid otherwise.
func (t Table) Apply(changes ...Change) (Table, error) {
	e := editor{table: t, touched: make(map[ServiceKey]*touched, 1)}
	for i, c := range changes {
		if err := e.apply(c); err != nil {
			if len(changes) > 1 {
				return Table{}, fmt.Errorf("change %d: %w", i+1, err)
			}
			return Table{}, err
		}
	}
	next := e.finish()
	if err := next.checkWhole(); err != nil {
		return Table{}, err
	}
	return next, nil
}

// editor applies changes to copies of the services that they touch.
type editor struct {
	table   Table // its services are still those from before
	touched map[ServiceKey]*touched
	order   []ServiceKey // of touched
}

// touched is a service before and after changes; nil is none.
type touched struct {
	before *Service
	now    *Service // own, unless it is before
}

// at returns the service with key k as it is now.
func (e *editor) at(k ServiceKey) *touched {
	s := e.touched[k]
	if s == nil {
		before := e.table.Service(k)
		s = &touched{before: before, now: before}
		e.touched[k] = s
		e.order = append(e.order, k)
	}
	return s
}

// own makes the service one that may be written to, and returns it.
func (s *touched) own() *Service {
	if s.now == s.before {
		clone := *s.before
		clone.Destinations = slices.Clone(clone.Destinations)
		s.now = &clone
	}
	return s.now
}

// finish returns the table after the changes. What has become as it was stays the
// same object.
func (e *editor) finish() Table {
	next := e.table
	var services *iradix.Txn[*Service]
	var changed []ServiceKey
	for _, k := range e.order {
		s := e.touched[k]
		if s.now == s.before || s.now != nil && s.before != nil && s.now.Equal(s.before) {
			continue
		}
		switch {
		case services != nil:
		case e.table.services == nil:
			services = iradix.New[*Service]().Txn()
		default:
			services = e.table.services.Txn()
		}
		if s.now == nil {
			services.Delete(k.sortable(nil))
		} else {
			services.Insert(k.sortable(nil), s.now)
		}
		changed = append(changed, k)
		next.counts.add(s.before, -1)
		next.counts.add(s.now, 1)
		if hostsDiffer(s.before, s.now) {
			next.hosts = new(byte)
		}
	}
	if services != nil {
		next.services = services.CommitOnly()
		next.last = e.table.last.then(e.table.services, changed)
	}
	return next
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
	at := e.at(c.Key)
	switch {
	case c.Op == AddService && at.now != nil:
		return &presenceError{fmt.Sprintf("add %s: the virtual service exists already", c.Key), os.ErrExist}
	case c.Op != AddService && at.now == nil:
		return noService(c)
	}
	if c.Op == DeleteService {
		at.now = nil
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
		at.now = &s
		return nil
	}
	own := at.own()
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
	service := e.at(c.Key)
	if service.now == nil {
		return noService(c)
	}
	s := service.own()
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
	switch {
	case c.Op == SetDestination:
		s.Destinations[at] = *c.Destination
	case len(s.Destinations) == MaxServiceDestinations:
		return invalidf("add %s to %s: the service has %d destinations, which is the limit", addr, c.Key, MaxServiceDestinations)
	default:
		s.Destinations = slices.Insert(s.Destinations, at, *c.Destination)
	}
	return nil
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

// checkWhole checks the rules between objects. It looks at each service only to
// name those that break one.
func (t Table) checkWhole() error {
	errs := t.checkLimits()
	if t.counts.mixed > 0 && !t.sync.Disabled {
		for s := range t.Services() {
			if d, mixed := s.MixedFamilies(); mixed {
				errs = append(errs, invalidf("%s destination %s: %s in an %s service is %s",
					s.Key, d.Addr, FamilyOf(d.Addr.Addr()), s.Key.Family, mixedReason))
			}
		}
	}
	return errors.Join(errs...)
}

func (t Table) checkLimits() (errs []error) {
	if t.Len() > MaxServices {
		errs = append(errs, invalidf("%d services, the limit is %d", t.Len(), MaxServices))
	}
	if t.counts.destinations > MaxDestinations {
		errs = append(errs, invalidf("%d destinations, the limit is %d", t.counts.destinations, MaxDestinations))
	}
	return errs
}

const mixedReason = "possible only with sync: {enabled: false}; the kernel cannot sync such connections"
