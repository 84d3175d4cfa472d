package ipvs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Forward is a forwarding method, with the kernel's numbers (linux/ip_vs.h,
// IP_VS_CONN_F_FWD_MASK).
type Forward uint32

// The forwarding methods. LocalNode and Bypass can be read from a kernel; a table
// holds only the first three.
const (
	Masq      Forward = 0
	LocalNode Forward = 1
	Tunnel    Forward = 2
	DRoute    Forward = 3
	Bypass    Forward = 4
)

var forwardNames = []string{"masq", "localnode", "tunnel", "droute", "bypass"}

// String returns "masq", "droute", "tunnel", "localnode" or "bypass".
func (f Forward) String() string { return enumName("forward", forwardNames, f) }

// ParseForward reads masq, droute or tunnel.
func ParseForward(name string) (Forward, error) {
	switch name {
	case "masq", "droute", "tunnel":
		return Forward(slices.Index(forwardNames, name)), nil
	}
	return 0, fmt.Errorf("unknown forwarding method %q, want masq, droute or tunnel", name)
}

// MarshalText implements encoding.TextMarshaler.
func (f Forward) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Forward) UnmarshalText(b []byte) (err error) {
	*f, err = ParseForward(string(b))
	return err
}

// TunnelType is the encapsulation of a tunnel destination, with the kernel's
// numbers.
type TunnelType uint8

// The tunnel types. GUE needs Linux 5.2, GRE 5.3.
const (
	IPIP TunnelType = 0
	GUE  TunnelType = 1
	GRE  TunnelType = 2
)

var tunnelTypeNames = []string{"ipip", "gue", "gre"}

// String returns "ipip", "gue" or "gre".
func (t TunnelType) String() string { return enumName("tunnel", tunnelTypeNames, t) }

// MarshalText implements encoding.TextMarshaler.
func (t TunnelType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *TunnelType) UnmarshalText(b []byte) (err error) {
	*t, err = parseEnum[TunnelType]("tunnel type", tunnelTypeNames, string(b))
	return err
}

// Checksum is a tunnel's checksum option, with the kernel's bits.
type Checksum uint16

// The checksum options. RemCsum is for GUE only.
const (
	NoCsum  Checksum = 0
	Csum    Checksum = 1
	RemCsum Checksum = 2
)

var checksumNames = []string{"nocsum", "csum", "remcsum"}

// String returns "nocsum", "csum" or "remcsum".
func (c Checksum) String() string { return enumName("checksum", checksumNames, c) }

// MarshalText implements encoding.TextMarshaler.
func (c Checksum) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Checksum) UnmarshalText(b []byte) (err error) {
	*c, err = parseEnum[Checksum]("tunnel checksum", checksumNames, string(b))
	return err
}

// TunnelOptions say how packets to a tunnel destination are encapsulated. The
// zero value is plain IP in IP.
type TunnelOptions struct {
	Type     TunnelType `json:"type"`
	Port     uint16     `json:"port,omitzero"` // UDP port of GUE, 1..65535; 0 for the other types
	Checksum Checksum   `json:"checksum,omitzero"`
}

// Destination is a real server of a virtual service. It is comparable. Its
// identity within the service is Addr; everything else can be edited in place.
type Destination struct {
	Addr    netip.AddrPort `json:"address"`
	Name    string         `json:"name,omitempty"`    // for people; not in the kernel
	Comment string         `json:"comment,omitempty"` // for people; not in the kernel
	Forward Forward        `json:"forward"`
	Weight  int32          `json:"weight"`          // 0..2147483647; 0 takes no new connections
	Upper   int32          `json:"upper,omitzero"`  // connections at which it takes no new ones, 0 = no limit
	Lower   int32          `json:"lower,omitzero"`  // connections below which it takes new ones again; 0 = 3/4 of Upper
	Tunnel  TunnelOptions  `json:"tunnel,omitzero"` // only with Forward Tunnel
}

// DefaultDestination holds what a document that leaves fields out means by it:
// direct routing with weight 1, as in ipvsadm.
var DefaultDestination = Destination{Forward: DRoute, Weight: 1}

// UnmarshalJSON reads a destination over DefaultDestination; unknown fields are
// errors.
func (d *Destination) UnmarshalJSON(b []byte) error {
	type plain Destination
	p := plain(DefaultDestination)
	if err := strictJSON(b, &p); err != nil {
		return err
	}
	*d = Destination(p)
	return nil
}

// bare returns d without what the kernel does not hold.
func (d Destination) bare() Destination {
	d.Name, d.Comment = "", ""
	return d
}

func compareAddrPort(a, b netip.AddrPort) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return int(a.Port()) - int(b.Port())
}

func strictJSON(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func enumName[T ~uint8 | ~uint16 | ~uint32](kind string, names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%s-%d", kind, v)
}

func parseEnum[T ~uint8 | ~uint16 | ~uint32](kind string, names []string, name string) (T, error) {
	i := slices.Index(names, name)
	if i < 0 {
		return 0, fmt.Errorf("unknown %s %q, want %s", kind, name, strings.Join(names, ", "))
	}
	return T(i), nil
}
