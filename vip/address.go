package vip

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Address is an address that this host is to have while it is the owner.
type Address struct {
	// Prefix is the address with the length of its network: /32 or /128, unless the
	// host is to reach that network by it.
	Prefix    netip.Prefix
	Interface string // name
}

// String returns the form that ParseAddress reads.
func (a Address) String() string { return a.Prefix.String() + "@" + a.Interface }

// Addr returns the address without its prefix length.
func (a Address) Addr() netip.Addr { return a.Prefix.Addr() }

func (a Address) compare(b Address) int {
	return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Interface, b.Interface))
}

// ParseAddress reads PREFIX@INTERFACE.
func ParseAddress(s string) (Address, error) {
	prefix, iface, ok := strings.Cut(s, "@")
	if !ok || iface == "" {
		return Address{}, fmt.Errorf("address %q: want PREFIX@INTERFACE", s)
	}
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", s, err)
	}
	return Address{Prefix: p, Interface: iface}, nil
}
