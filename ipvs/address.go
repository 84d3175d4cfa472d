package ipvs

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ParseAddrPort reads ADDRESS:PORT or [IPv6]:PORT. Names are not resolved. The error
// says which part is wrong.
func ParseAddrPort(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err == nil {
		return ap, nil
	}
	host, port, split := net.SplitHostPort(s)
	if split != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not ADDRESS:PORT or [IPv6]:PORT", s)
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not ADDRESS:PORT or [IPv6]:PORT: %s", s, noAddress(host))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not ADDRESS:PORT or [IPv6]:PORT: port %q is not a number from 0 to 65535", s, port)
	}
	return netip.AddrPort{}, fmt.Errorf("%q is not ADDRESS:PORT or [IPv6]:PORT", s) // brackets around IPv4
}

// ParsePrefix reads ADDRESS/LENGTH, or ADDRESS, which has the length 32 or 128. The
// error says which part is wrong.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return hostPrefix(a), nil
	}
	p, err := netip.ParsePrefix(s)
	if err == nil {
		return p, nil
	}
	host, length, split := strings.Cut(s, "/")
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil && host != "":
		return netip.Prefix{}, fmt.Errorf("%q is not ADDRESS or ADDRESS/LENGTH: %s", s, noAddress(host))
	case err == nil && a.Zone() == "" && split:
		return netip.Prefix{}, fmt.Errorf("%q is not ADDRESS or ADDRESS/LENGTH: length %q is not a number from 0 to %d", s, length, a.BitLen())
	}
	return netip.Prefix{}, fmt.Errorf("%q is not ADDRESS or ADDRESS/LENGTH", s)
}

// noAddress says why host is no IP address.
func noAddress(host string) string {
	if strings.Trim(host, "0123456789.") == "" || strings.Contains(host, ":") {
		return fmt.Sprintf("%q is not an IP address", host)
	}
	return fmt.Sprintf("%q is not an IP address, and host names are not accepted", host)
}
