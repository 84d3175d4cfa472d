package kernel

import (
	"context"
	"net/netip"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Apply carries out changes of services and destinations in order, many with one
// system call. They are independent: after one that fails the others are still tried.
// It returns nil when none failed, else a slice with one entry for each change, nil
// for those done.
//
// Adding what exists matches os.ErrExist, setting or deleting what does not
// os.ErrNotExist. A SetSync, SetTimeouts or SetVIPs matches errors.ErrUnsupported:
// see StartDaemon and SetTimeouts; virtual addresses are not IPVS's.
//
// When ctx ends, or the kernel does not answer, the entries tell exactly what may
// have happened: those that match ErrUnanswered may have been carried out, which are
// at most 200 at a time, and neither those with other errors nor any change after
// them was, when ctx has ended; what comes before is done or refused.
func (c *Client) Apply(ctx context.Context, changes []ipvs.Change) []error {
	var errs []error
	fail := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(changes))
		}
		errs[i] = err
	}
	var b batch
	flush := func() {
		if b.len() == 0 {
			return
		}
		c.link.submit(ctx, &b)
		for i, err := range b.errs {
			if err != nil {
				r, _ := RequestOf(changes[b.changes[i]])
				fail(b.changes[i], opError(r, err))
			}
		}
		b.reset()
	}
	for i, change := range changes {
		r, err := RequestOf(change)
		if err == nil {
			err = r.Check()
		}
		if err != nil {
			fail(i, err)
			continue
		}
		b.add(i, r)
		if b.full() {
			flush()
		}
	}
	flush()
	return errs
}

// AddService adds s without its destinations. The error matches os.ErrExist when
// the key is taken and ErrNoScheduler when the kernel lacks the scheduler or the
// persistence engine.
func (c *Client) AddService(ctx context.Context, s ipvs.Service) error {
	return c.do(ctx, Request{Op: OpAddService, Key: s.Key, Service: &s})
}

// SetService gives the service with the key of s all settings of s in place;
// destinations and connections stay. The error matches ErrNoService or
// ErrNoScheduler. With another scheduler than before the kernel refuses new
// connections for some milliseconds.
func (c *Client) SetService(ctx context.Context, s ipvs.Service) error {
	return c.do(ctx, Request{Op: OpSetService, Key: s.Key, Service: &s})
}

// DeleteService deletes a service with its destinations. The error matches
// ErrNoService. Connections stay, but deleting the last service of an address
// family unhooks IPVS from the packet path and so resets them.
func (c *Client) DeleteService(ctx context.Context, key ipvs.ServiceKey) error {
	return c.do(ctx, Request{Op: OpDeleteService, Key: key})
}

// AddDestination adds d to a service. The error matches os.ErrExist or
// ErrNoService. A destination deleted a short time ago gets its connections back.
func (c *Client) AddDestination(ctx context.Context, key ipvs.ServiceKey, d ipvs.Destination) error {
	return c.do(ctx, Request{Op: OpAddDestination, Key: key, Destination: &d})
}

// SetDestination gives the destination at d.Addr all settings of d in place. The
// error matches os.ErrNotExist, and ErrNoService when even the service is missing.
func (c *Client) SetDestination(ctx context.Context, key ipvs.ServiceKey, d ipvs.Destination) error {
	return c.do(ctx, Request{Op: OpSetDestination, Key: key, Destination: &d})
}

// DeleteDestination deletes the destination at addr. The error matches
// os.ErrNotExist, and ErrNoService when even the service is missing. The packets of
// its connections are dropped from now on.
func (c *Client) DeleteDestination(ctx context.Context, key ipvs.ServiceKey, addr netip.AddrPort) error {
	return c.do(ctx, Request{Op: OpDeleteDestination, Key: key, Address: addr})
}

// Zero sets the counters of a service and its destinations to 0, or, when key is
// nil, those of all services. The error matches ErrNoService.
func (c *Client) Zero(ctx context.Context, key *ipvs.ServiceKey) error {
	r := Request{Op: OpZero}
	if key != nil {
		r.Key = *key
		if err := (Request{Op: OpService, Key: r.Key}).Check(); err != nil { // the zero key would mean all
			return err
		}
	}
	return c.do(ctx, r)
}

// Flush deletes all services, which resets live connections, see DeleteService. It
// leaves sync daemons and timeouts alone.
func (c *Client) Flush(ctx context.Context) error {
	return c.do(ctx, Request{Op: OpFlush})
}
