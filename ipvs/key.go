package ipvs

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ServiceKey is the identity of a virtual service in the kernel: either protocol,
// address and port, or family and firewall mark. It cannot be edited in place;
// everything else about a service can. ServiceKey is comparable.
type ServiceKey struct {
	Family   Family
	Protocol Protocol   // 0 for a firewall-mark service
	Addr     netip.Addr // invalid for a firewall-mark service
	Port     uint16     // 0 means every port and needs persistence
	FWMark   uint32     // 0 for an address service
}

// ServiceAt returns the key of the service at addr for protocol p.
func ServiceAt(p Protocol, addr netip.AddrPort) ServiceKey {
	return ServiceKey{Family: FamilyOf(addr.Addr()), Protocol: p, Addr: addr.Addr(), Port: addr.Port()}
}

// ServiceMarked returns the key of the service for packets of family f that
// carry firewall mark mark.
func ServiceMarked(f Family, mark uint32) ServiceKey {
	return ServiceKey{Family: f, FWMark: mark}
}

// ParseServiceKey reads tcp://ADDR:PORT, udp://ADDR:PORT, sctp://ADDR:PORT (IPv6
// addresses in brackets), fwmark://MARK (IPv4) or fwmark6://MARK (IPv6). Names are
// not resolved. It also reads protocol-NUMBER://ADDR:PORT, the form of a service
// that others made for a protocol which Validate refuses.
func ParseServiceKey(s string) (ServiceKey, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return ServiceKey{}, fmt.Errorf("service %q: want tcp://ADDRESS:PORT, udp://, sctp://, fwmark://MARK or fwmark6://MARK", s)
	}
	var p Protocol
	switch scheme {
	case "tcp":
		p = TCP
	case "udp":
		p = UDP
	case "sctp":
		p = SCTP
	case "fwmark", "fwmark6":
		mark, err := strconv.ParseUint(rest, 10, 32)
		if err != nil || mark == 0 {
			return ServiceKey{}, fmt.Errorf("service %q: the firewall mark must be a number from 1 to 4294967295", s)
		}
		if scheme == "fwmark6" {
			return ServiceMarked(IPv6, uint32(mark)), nil
		}
		return ServiceMarked(IPv4, uint32(mark)), nil
	default:
		number, ok := strings.CutPrefix(scheme, "protocol-")
		n, err := strconv.ParseUint(number, 10, 16)
		if ok && err == nil {
			p = Protocol(n)
			break
		}
		return ServiceKey{}, fmt.Errorf("service %q: unknown scheme %q, want tcp, udp, sctp, fwmark or fwmark6", s, scheme)
	}
	ap, err := ParseAddrPort(rest)
	if err != nil {
		return ServiceKey{}, fmt.Errorf("service %q: %w", s, err)
	}
	return ServiceAt(p, ap), nil
}

// String returns the form that ParseServiceKey reads.
func (k ServiceKey) String() string {
	switch {
	case k.FWMark != 0 && k.Family == IPv6:
		return fmt.Sprintf("fwmark6://%d", k.FWMark)
	case k.FWMark != 0:
		return fmt.Sprintf("fwmark://%d", k.FWMark)
	}
	return fmt.Sprintf("%s://%s", k.Protocol, netip.AddrPortFrom(k.Addr, k.Port))
}

// Compare orders keys as ipvsadm lists them: by firewall mark (services without
// one first), family, protocol, numeric address and port.
func (k ServiceKey) Compare(o ServiceKey) int {
	return cmp.Or(
		cmp.Compare(k.FWMark, o.FWMark),
		cmp.Compare(k.Family, o.Family),
		cmp.Compare(k.Protocol, o.Protocol),
		k.Addr.Compare(o.Addr),
		cmp.Compare(k.Port, o.Port),
	)
}

// maxSortable is the length of the longest sortable form of a key without a zone.
const maxSortable = 4 + 2 + 2 + 1 + 16 + 1 + 2

// sortable appends the form of k whose order as bytes is that of Compare.
func (k ServiceKey) sortable(to []byte) []byte {
	to = binary.BigEndian.AppendUint32(slices.Grow(to, maxSortable), k.FWMark)
	to = binary.BigEndian.AppendUint16(to, uint16(k.Family))
	to = binary.BigEndian.AppendUint16(to, uint16(k.Protocol))
	to = append(to, byte(k.Addr.BitLen()))
	switch {
	case k.Addr.Is4():
		b := k.Addr.As4()
		to = append(to, b[:]...)
	case k.Addr.Is6():
		b := k.Addr.As16()
		to = append(append(to, b[:]...), k.Addr.Zone()...)
	}
	return binary.BigEndian.AppendUint16(append(to, 0), k.Port)
}

// MarshalText implements encoding.TextMarshaler.
func (k ServiceKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *ServiceKey) UnmarshalText(b []byte) error {
	parsed, err := ParseServiceKey(string(b))
	if err != nil {
		return err
	}
	*k = parsed
	return nil
}

// Validate reports what makes k unusable as the key of a virtual service.
func (k ServiceKey) Validate() error {
	if k.FWMark != 0 {
		if k.Family != IPv4 && k.Family != IPv6 {
			return fmt.Errorf("%s is not an address family", k.Family)
		}
		if k.Protocol != 0 || k.Addr.IsValid() || k.Port != 0 {
			return errors.New("a firewall-mark service has no protocol, address or port")
		}
		return nil
	}
	switch k.Protocol {
	case TCP, UDP, SCTP:
	default:
		return fmt.Errorf("%s is not tcp, udp or sctp", k.Protocol)
	}
	if err := CheckUnicast(k.Addr); err != nil {
		return err
	}
	if k.Family != FamilyOf(k.Addr) {
		return fmt.Errorf("family %s does not fit address %s", k.Family, k.Addr)
	}
	return nil
}

// CheckUnicast refuses what the kernel refuses, and v4-mapped addresses, which it
// silently reads as 0.0.0.0.
func CheckUnicast(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("the address is missing")
	case a.Is4In6():
		return fmt.Errorf("address %s is an IPv4 address written as IPv6: write %s", a, a.Unmap())
	case a.Zone() != "":
		return fmt.Errorf("address %s: a zone is not possible here", a)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("address %s is not a unicast address", a)
	}
	return nil
}
