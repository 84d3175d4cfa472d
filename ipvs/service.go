package ipvs

import (
	"net/netip"
	"slices"
)

// Service is a virtual service with its destinations. Its identity is Key;
// everything else can be edited in place.
type Service struct {
	Key          ServiceKey    `json:"service"`
	Name         string        `json:"name,omitempty"`      // for people; not in the kernel
	Comment      string        `json:"comment,omitempty"`   // for people; not in the kernel
	NoVIP        Negated       `json:"vip,omitzero"`        // this service does not make its address a VIP, see VIPs; not in the kernel
	Scheduler    string        `json:"scheduler,omitempty"` // one of Schedulers; empty: DefaultScheduler
	Persistence  Persistence   `json:"persistence,omitzero"`
	Flags        Flags         `json:"flags,omitzero"`
	Destinations []Destination `json:"destinations,omitempty"` // in the order of their addresses, no address twice
}

// Persistence makes a client's connections stay with one destination. The zero
// value is no persistence.
type Persistence struct {
	Timeout Seconds    `json:"timeout"`          // 1 s .. MaxTimeout
	Netmask netip.Addr `json:"netmask,omitzero"` // IPv4: clients of one network count as one; unset = 255.255.255.255
	Prefix  uint8      `json:"prefix,omitzero"`  // IPv6: the same by prefix length, 1..127; unset = 128
	Engine  string     `json:"engine,omitempty"` // persistence engine, "sip", or empty
}

// DefaultScheduler is used where none is named, as in ipvsadm.
const DefaultScheduler = "wlc"

// Schedulers are the scheduler names of Linux up to 6.12 (net/netfilter/ipvs),
// sorted. Names outside this list never reach a kernel: an unknown one costs a
// module load under the lock that blocks all IPVS configuration.
func Schedulers() []string {
	return []string{"dh", "fo", "lblc", "lblcr", "lc", "mh", "nq", "ovf", "rr", "sed", "sh", "twos", "wlc", "wrr"}
}

// Normalize returns s in canonical form: destinations sorted by address, flags by
// the names of its scheduler, default scheduler and netmasks written one way.
// Equal services have equal canonical forms. The result shares nothing with s
// that a caller may write to.
func (s Service) Normalize() Service {
	if s.Scheduler == "" {
		s.Scheduler = DefaultScheduler
	}
	s.Flags = s.Flags.canonical(s.Scheduler)
	if s.Persistence.Netmask == allOnes {
		s.Persistence.Netmask = netip.Addr{}
	}
	if s.Persistence.Prefix == 128 {
		s.Persistence.Prefix = 0
	}
	s.Destinations = slices.Clone(s.Destinations)
	if len(s.Destinations) == 0 {
		s.Destinations = nil
	}
	slices.SortFunc(s.Destinations, func(a, b Destination) int { return compareAddrPort(a.Addr, b.Addr) })
	return s
}

var allOnes = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Destination returns the destination at addr.
func (s *Service) Destination(addr netip.AddrPort) (Destination, bool) {
	i, ok := s.find(addr)
	if !ok {
		return Destination{}, false
	}
	return s.Destinations[i], true
}

func (s *Service) find(addr netip.AddrPort) (int, bool) {
	return slices.BinarySearchFunc(s.Destinations, addr, func(d Destination, a netip.AddrPort) int { return compareAddrPort(d.Addr, a) })
}

// Bare returns s without what the kernel does not hold: names, comments and NoVIP.
// Two services whose bare forms are equal are the same to a kernel.
func (s Service) Bare() Service {
	s.Name, s.Comment, s.NoVIP = "", "", false
	s.Destinations = slices.Clone(s.Destinations)
	for i, d := range s.Destinations {
		s.Destinations[i] = d.bare()
	}
	return s
}

// SameBare reports whether the bare forms of s and o, both canonical, are equal.
func (s *Service) SameBare(o *Service) bool {
	return s.Key == o.Key && s.Scheduler == o.Scheduler && s.Persistence == o.Persistence && s.Flags == o.Flags &&
		slices.EqualFunc(s.Destinations, o.Destinations, func(a, b Destination) bool { return a.bare() == b.bare() })
}

// Equal reports whether s and o are the same in every field.
func (s *Service) Equal(o *Service) bool {
	return s.sameSettings(o) && slices.Equal(s.Destinations, o.Destinations)
}

// sameSettings compares everything but the destinations.
func (s *Service) sameSettings(o *Service) bool {
	return s.Key == o.Key && s.Name == o.Name && s.Comment == o.Comment && s.NoVIP == o.NoVIP &&
		s.Scheduler == o.Scheduler && s.Persistence == o.Persistence && s.Flags == o.Flags
}

// settings returns s without its destinations.
func (s Service) settings() Service {
	s.Destinations = nil
	return s
}

// MixedFamilies returns a destination whose family is not the service's.
func (s *Service) MixedFamilies() (Destination, bool) {
	for _, d := range s.Destinations {
		if FamilyOf(d.Addr.Addr()) != s.Key.Family {
			return d, true
		}
	}
	return Destination{}, false
}
