package memkernel

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// Kernel is an IPVS in memory, safe for concurrent use.
type Kernel struct {
	*state
	byHand bool
}

// state is what the views of one kernel share.
type state struct {
	mu         sync.Mutex
	services   map[ipvs.ServiceKey]*service
	daemons    map[ipvs.DaemonState]ipvs.Daemon
	timeouts   ipvs.Timeouts
	schedulers map[string]bool
	noTunnels  bool
	interfaces map[string]Interface // nil: every name is one
	refuse     func(op, object string) error
}

// Interface is a network interface, as far as sync daemons care.
type Interface struct {
	Name string
	MTU  int // bytes; 0 = 1500
	Down bool
}

// Option changes what New returns.
type Option func(*state)

// WithoutScheduler takes a scheduler away, as if its module were not installed.
func WithoutScheduler(name string) Option {
	return func(s *state) { delete(s.schedulers, name) }
}

// WithoutTunnelOptions makes the kernel ignore the type and options of tunnels, as
// Linux before 5.2 does.
func WithoutTunnelOptions() Option {
	return func(s *state) { s.noTunnels = true }
}

// WithInterfaces says which interfaces there are. Without it there is one of every
// name, up and with an MTU of 1500 bytes.
func WithInterfaces(interfaces ...Interface) Option {
	return func(s *state) { s.setInterfaces(interfaces) }
}

// New returns a kernel with an empty table, all schedulers and no daemons.
func New(opts ...Option) *Kernel {
	s := &state{
		services:   map[ipvs.ServiceKey]*service{},
		daemons:    map[ipvs.DaemonState]ipvs.Daemon{},
		timeouts:   ipvs.Timeouts{TCP: 900, TCPFin: 120, UDP: 300},
		schedulers: map[string]bool{"none": true},
	}
	for _, name := range ipvs.Schedulers() {
		s.schedulers[name] = true
	}
	for _, opt := range opts {
		opt(s)
	}
	return &Kernel{state: s}
}

// ByHand returns a view of the same kernel for somebody else's edits: the function
// given to Refuse neither sees nor refuses them.
func (k *Kernel) ByHand() *Kernel { return &Kernel{state: k.state, byHand: true} }

// Refuse has fn asked before each request is carried out, with its kernel.Op
// constant and Request.Object. When fn returns an error the request fails and
// changes nothing; a syscall.Errno becomes the kernel's own error for it. fn may be
// called concurrently and may use ByHand. Nil ends it.
func (k *Kernel) Refuse(fn func(op, object string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuse = fn
}

// SetInterfaces replaces the interfaces. Daemons go on as they are, as in Linux.
func (k *Kernel) SetInterfaces(interfaces ...Interface) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.setInterfaces(interfaces)
}

func (s *state) setInterfaces(interfaces []Interface) {
	s.interfaces = make(map[string]Interface, len(interfaces))
	for _, i := range interfaces {
		s.interfaces[i.Name] = i
	}
}

// Close does nothing.
func (k *Kernel) Close() error { return nil }

// do has carry done with the state locked, unless the request is refused.
func (k *Kernel) do(ctx context.Context, r kernel.Request, carry func(r kernel.Request) syscall.Errno) error {
	if err := ctx.Err(); err != nil {
		return &kernel.OpError{Op: r.Op, Object: r.Object(), Err: err}
	}
	if err := r.Check(); err != nil {
		return err
	}
	if err := k.refusal(r); err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return r.Refused(errno)
		}
		return &kernel.OpError{Op: r.Op, Object: r.Object(), Err: err}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if errno := carry(r); errno != 0 {
		return r.Refused(errno)
	}
	return nil
}

func (k *Kernel) refusal(r kernel.Request) error {
	k.mu.Lock()
	refuse := k.refuse
	k.mu.Unlock()
	if refuse == nil || k.byHand {
		return nil
	}
	return refuse(r.Op, r.Object())
}
