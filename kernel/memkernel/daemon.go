package memkernel

import (
	"context"
	"net/netip"
	"syscall"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// Daemons returns the running sync daemons, the master first.
func (k *Kernel) Daemons(ctx context.Context) ([]ipvs.Daemon, error) {
	daemons := []ipvs.Daemon{}
	err := k.do(ctx, kernel.Request{Op: kernel.OpDaemons}, func(kernel.Request) syscall.Errno {
		for _, role := range []ipvs.DaemonState{ipvs.Master, ipvs.Backup} {
			if d, ok := k.daemons[role]; ok {
				daemons = append(daemons, d)
			}
		}
		return 0
	})
	if err != nil {
		return nil, err
	}
	return daemons, nil
}

// StartDaemon starts a sync daemon.
func (k *Kernel) StartDaemon(ctx context.Context, d ipvs.Daemon) error {
	return k.do(ctx, kernel.Request{Op: kernel.OpStartDaemon, Daemon: d}, k.start)
}

// start has its checks in the order of net/netfilter/ipvs.
func (k *Kernel) start(r kernel.Request) syscall.Errno {
	d := r.Daemon
	if d.Group.IsValid() && !d.Group.IsMulticast() || k.mixed() {
		return syscall.EINVAL
	}
	dev, ok := k.interfaces[d.Interface]
	if !ok && k.interfaces != nil {
		return syscall.ENODEV
	}
	if _, running := k.daemons[d.State]; running {
		return syscall.EEXIST
	}
	if d.State == ipvs.Master && dev.Down {
		return syscall.ENETUNREACH
	}
	k.daemons[d.State] = filledIn(d, dev)
	return 0
}

// mixed reports whether a destination has another family than its service.
func (k *Kernel) mixed() bool {
	for key, s := range k.services {
		for addr := range s.destinations {
			if ipvs.FamilyOf(addr.Addr()) != key.Family {
				return true
			}
		}
	}
	return false
}

// filledIn returns d with the kernel's values for what it leaves open.
func filledIn(d ipvs.Daemon, dev Interface) ipvs.Daemon {
	if !d.Group.IsValid() {
		d.Group = netip.AddrFrom4([4]byte{224, 0, 0, 81})
	}
	if d.Port == 0 {
		d.Port = 8848
	}
	if d.TTL == 0 {
		d.TTL = 1
	}
	headers := 28 // IPv4 and UDP
	if d.Group.Is6() {
		headers = 48
	}
	mtu := dev.MTU
	if mtu == 0 || d.State == ipvs.Master {
		mtu = 1500
	}
	longest := 65535 - headers
	switch {
	case d.MaxLen == 0:
		d.MaxLen = uint16(min(max(mtu, 1500), 65535) - headers)
	case d.State == ipvs.Backup:
		d.MaxLen = max(d.MaxLen, 1024)
	}
	d.MaxLen = uint16(min(int(d.MaxLen), longest))
	return d
}

// StopDaemon stops the sync daemon of a role.
func (k *Kernel) StopDaemon(ctx context.Context, role ipvs.DaemonState) error {
	r := kernel.Request{Op: kernel.OpStopDaemon, Daemon: ipvs.Daemon{State: role}}
	return k.do(ctx, r, func(kernel.Request) syscall.Errno {
		if _, running := k.daemons[role]; !running {
			return syscall.ESRCH
		}
		delete(k.daemons, role)
		return 0
	})
}

// Timeouts returns the connection timeouts.
func (k *Kernel) Timeouts(ctx context.Context) (ipvs.Timeouts, error) {
	var t ipvs.Timeouts
	err := k.do(ctx, kernel.Request{Op: kernel.OpTimeouts}, func(kernel.Request) syscall.Errno {
		t = k.timeouts
		return 0
	})
	return t, err
}

// longestTimeout is that of a kernel with 250 ticks a second, in seconds.
const longestTimeout = (1<<31 - 1) / 250

// SetTimeouts sets the connection timeouts that are not zero.
func (k *Kernel) SetTimeouts(ctx context.Context, t ipvs.Timeouts) error {
	r := kernel.Request{Op: kernel.OpSetTimeouts, Timeouts: t}
	return k.do(ctx, r, func(kernel.Request) syscall.Errno {
		if max(t.TCP, t.TCPFin, t.UDP) > longestTimeout {
			return syscall.EINVAL
		}
		set := func(to *ipvs.Seconds, v ipvs.Seconds) {
			if v != 0 {
				*to = v
			}
		}
		set(&k.timeouts.TCP, t.TCP)
		set(&k.timeouts.TCPFin, t.TCPFin)
		set(&k.timeouts.UDP, t.UDP)
		return 0
	})
}

// Info returns what Linux says about its IPVS by default.
func (k *Kernel) Info(ctx context.Context) (ipvs.Info, error) {
	err := k.do(ctx, kernel.Request{Op: kernel.OpInfo}, func(kernel.Request) syscall.Errno { return 0 })
	if err != nil {
		return ipvs.Info{}, err
	}
	return ipvs.Info{Version: 0x010201, ConnTableSize: 4096}, nil
}
