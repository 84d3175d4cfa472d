package ipvs

import (
	"fmt"
	"net/netip"
)

// Family is an address family, with the kernel's numbers (AF_INET, AF_INET6).
type Family uint16

// The families IPVS knows.
const (
	IPv4 Family = 2
	IPv6 Family = 10
)

// FamilyOf returns the family of a, or 0 for the zero Addr.
func FamilyOf(a netip.Addr) Family {
	switch {
	case a.Is4():
		return IPv4
	case a.Is6():
		return IPv6
	}
	return 0
}

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return fmt.Sprintf("family-%d", uint16(f))
}

// Protocol is a transport protocol, with its IP protocol number (IANA). It is 0
// for firewall-mark services. The kernel itself validates none of these.
type Protocol uint16

// The protocols a virtual service may have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the lower-case name used in service URLs.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol-%d", uint16(p))
}
