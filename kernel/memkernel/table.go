package memkernel

import (
	"context"
	"net/netip"
	"syscall"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// service is a virtual service as the kernel holds it.
type service struct {
	ipvs.Service // without destinations
	destinations map[netip.AddrPort]ipvs.Destination
}

// Services returns all virtual services in no particular order.
func (k *Kernel) Services(ctx context.Context) ([]ipvs.ServiceEntry, error) {
	entries := []ipvs.ServiceEntry{}
	err := k.do(ctx, kernel.Request{Op: kernel.OpServices}, func(kernel.Request) syscall.Errno {
		for _, s := range k.services {
			entries = append(entries, ipvs.ServiceEntry{Service: s.Service})
		}
		return 0
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// Service returns the virtual service with the given key, without destinations.
func (k *Kernel) Service(ctx context.Context, key ipvs.ServiceKey) (ipvs.ServiceEntry, error) {
	var entry ipvs.ServiceEntry
	err := k.do(ctx, kernel.Request{Op: kernel.OpService, Key: key}, func(r kernel.Request) syscall.Errno {
		s := k.services[r.Key]
		if s == nil {
			return syscall.ESRCH
		}
		entry.Service = s.Service
		return 0
	})
	return entry, err
}

// Destinations returns the destinations of a virtual service in no particular
// order.
func (k *Kernel) Destinations(ctx context.Context, key ipvs.ServiceKey) ([]ipvs.DestinationEntry, error) {
	entries := []ipvs.DestinationEntry{}
	err := k.do(ctx, kernel.Request{Op: kernel.OpDestinations, Key: key}, func(r kernel.Request) syscall.Errno {
		s := k.services[r.Key]
		if s == nil {
			return syscall.ESRCH
		}
		for _, d := range s.destinations {
			entries = append(entries, ipvs.DestinationEntry{Destination: d})
		}
		return 0
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// Table returns all virtual services with their destinations. It is asked for, and
// refused, as one request, kernel.OpServices, and is a snapshot.
func (k *Kernel) Table(ctx context.Context, _ ...kernel.TableOption) (ipvs.Table, error) {
	services := []ipvs.Service{}
	err := k.do(ctx, kernel.Request{Op: kernel.OpServices}, func(kernel.Request) syscall.Errno {
		for _, s := range k.services {
			whole := s.Service
			for _, d := range s.destinations {
				whole.Destinations = append(whole.Destinations, d)
			}
			services = append(services, whole)
		}
		return 0
	})
	if err != nil {
		return ipvs.Table{}, err
	}
	return ipvs.TableOf(services...), nil
}

// Apply carries out changes of services and destinations like kernel.Client.Apply.
func (k *Kernel) Apply(ctx context.Context, changes []ipvs.Change) []error {
	var errs []error
	for i, change := range changes {
		r, err := kernel.RequestOf(change)
		if err == nil {
			err = k.do(ctx, r, k.change)
		}
		if err == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, len(changes))
		}
		errs[i] = err
	}
	return errs
}

// AddService adds s without its destinations.
func (k *Kernel) AddService(ctx context.Context, s ipvs.Service) error {
	return k.do(ctx, kernel.Request{Op: kernel.OpAddService, Key: s.Key, Service: &s}, k.change)
}

// SetService gives a service all settings of s.
func (k *Kernel) SetService(ctx context.Context, s ipvs.Service) error {
	return k.do(ctx, kernel.Request{Op: kernel.OpSetService, Key: s.Key, Service: &s}, k.change)
}

// DeleteService deletes a service with its destinations.
func (k *Kernel) DeleteService(ctx context.Context, key ipvs.ServiceKey) error {
	return k.do(ctx, kernel.Request{Op: kernel.OpDeleteService, Key: key}, k.change)
}

// AddDestination adds d to a service.
func (k *Kernel) AddDestination(ctx context.Context, key ipvs.ServiceKey, d ipvs.Destination) error {
	return k.do(ctx, kernel.Request{Op: kernel.OpAddDestination, Key: key, Destination: &d}, k.change)
}

// SetDestination gives a destination all settings of d.
func (k *Kernel) SetDestination(ctx context.Context, key ipvs.ServiceKey, d ipvs.Destination) error {
	return k.do(ctx, kernel.Request{Op: kernel.OpSetDestination, Key: key, Destination: &d}, k.change)
}

// DeleteDestination deletes the destination at addr.
func (k *Kernel) DeleteDestination(ctx context.Context, key ipvs.ServiceKey, addr netip.AddrPort) error {
	return k.do(ctx, kernel.Request{Op: kernel.OpDeleteDestination, Key: key, Address: addr}, k.change)
}

// Zero changes nothing: all counters are 0.
func (k *Kernel) Zero(ctx context.Context, key *ipvs.ServiceKey) error {
	r := kernel.Request{Op: kernel.OpZero}
	if key != nil {
		r.Key = *key
		if err := (kernel.Request{Op: kernel.OpService, Key: r.Key}).Check(); err != nil {
			return err
		}
	}
	return k.do(ctx, r, func(r kernel.Request) syscall.Errno {
		if key != nil && k.services[r.Key] == nil {
			return syscall.ESRCH
		}
		return 0
	})
}

// Flush deletes all services.
func (k *Kernel) Flush(ctx context.Context) error {
	return k.do(ctx, kernel.Request{Op: kernel.OpFlush}, func(kernel.Request) syscall.Errno {
		clear(k.services)
		return 0
	})
}
