package memkernel

import (
	"net/netip"
	"syscall"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// change carries out a change of a service or destination. The order of the checks
// is that of net/netfilter/ipvs/ip_vs_ctl.c.
func (k *Kernel) change(r kernel.Request) syscall.Errno {
	s := k.services[r.Key]
	switch r.Op {
	case kernel.OpAddService:
		if s != nil {
			return syscall.EEXIST
		}
		return k.setService(&service{destinations: map[netip.AddrPort]ipvs.Destination{}}, r.Service)
	case kernel.OpSetService:
		if s == nil {
			return syscall.ESRCH
		}
		return k.setService(s, r.Service)
	case kernel.OpDeleteService:
		if s == nil {
			return syscall.ESRCH
		}
		delete(k.services, r.Key)
		return 0
	}
	if s == nil {
		return syscall.ESRCH
	}
	if r.Op == kernel.OpDeleteDestination {
		if _, ok := s.destinations[r.Address]; !ok {
			return syscall.ENOENT
		}
		delete(s.destinations, r.Address)
		return 0
	}
	return k.setDestination(s, r)
}

func (k *Kernel) setService(s *service, settings *ipvs.Service) syscall.Errno {
	if !k.schedulers[settings.Scheduler] {
		return syscall.ENOENT
	}
	if engine := settings.Persistence.Engine; engine != "" && engine != "sip" {
		return syscall.ENOENT
	}
	if settings.Persistence.Prefix > 128 {
		return syscall.EINVAL
	}
	bare := *settings
	bare.Destinations = nil
	s.Service = bare.Bare().Normalize()
	k.services[settings.Key] = s
	return 0
}

func (k *Kernel) setDestination(s *service, r kernel.Request) syscall.Errno {
	d := *r.Destination
	if ipvs.FamilyOf(d.Addr.Addr()) != r.Key.Family && (len(k.daemons) > 0 || d.Forward != ipvs.Tunnel) {
		return syscall.EINVAL
	}
	if d.Weight < 0 || d.Lower > d.Upper {
		return syscall.ERANGE
	}
	if d.Tunnel.Type == ipvs.GUE && d.Tunnel.Port == 0 {
		return syscall.EINVAL
	}
	_, exists := s.destinations[d.Addr]
	switch {
	case r.Op == kernel.OpAddDestination && exists:
		return syscall.EEXIST
	case r.Op == kernel.OpSetDestination && !exists:
		return syscall.ENOENT
	case r.Op == kernel.OpAddDestination && !reachable(d.Addr.Addr()):
		return syscall.EINVAL
	}
	d.Name, d.Comment = "", ""
	if k.noTunnels {
		d.Tunnel = ipvs.TunnelOptions{}
	}
	s.destinations[d.Addr] = d
	return 0
}

// reachable says whether a can be a destination: unicast, and not link-local, as
// if no such address were the host's own.
func reachable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) &&
		(a.Is4() || !a.IsLinkLocalUnicast())
}
