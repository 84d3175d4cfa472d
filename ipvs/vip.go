package ipvs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// VIP is a virtual address: the active director has it, and nobody else. It is
// comparable.
type VIP struct {
	Prefix  netip.Prefix `json:"address"`           // the address, not masked, and the length of its subnet
	Network string       `json:"network,omitempty"` // each node maps it to an interface of its own; empty: the node's VIP interface
}

// UnmarshalJSON reads a VIP whose address may lack the length; unknown fields are
// errors.
func (v *VIP) UnmarshalJSON(b []byte) error {
	var doc struct {
		Address string `json:"address"`
		Network string `json:"network"`
	}
	if err := strictJSON(b, &doc); err != nil {
		return err
	}
	prefix, err := ParsePrefix(doc.Address)
	if err != nil {
		return err
	}
	*v = VIP{Prefix: prefix, Network: doc.Network}
	return nil
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// compare orders by address, IPv4 first.
func (v VIP) compare(o VIP) int {
	return cmp.Or(v.Prefix.Addr().Compare(o.Prefix.Addr()), cmp.Compare(v.Prefix.Bits(), o.Prefix.Bits()), strings.Compare(v.Network, o.Network))
}

// checkVIP refuses what cannot be one host's address among others.
func checkVIP(p netip.Prefix) error {
	a := p.Addr()
	if err := CheckUnicast(a); err != nil {
		return err
	}
	switch {
	case a.IsLinkLocalUnicast():
		return fmt.Errorf("address %s is link-local: nobody beyond the link could reach it", a)
	case a.IsLoopback():
		return fmt.Errorf("address %s is a loopback address: every host has it", a)
	case p.Bits() < 1:
		return fmt.Errorf("%s: the length is not from 1 to %d", p, a.BitLen())
	case a.BitLen()-p.Bits() < 2: // the subnet is all hosts
	case a == p.Masked().Addr():
		return fmt.Errorf("%s is the subnet itself, not an address in it", p)
	case a.Is4() && a == lastAddr(p):
		return fmt.Errorf("%s is the broadcast address of its subnet", p)
	}
	return nil
}

// lastAddr returns the last address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// CheckNetwork reports why name cannot name a network: it must have 1 to
// MaxNetwork characters of a-z, 0-9 and '-'.
func CheckNetwork(name string) error {
	switch {
	case name == "" || len(name) > MaxNetwork:
		return fmt.Errorf("network %q has %d characters, not from 1 to %d", name, len(name), MaxNetwork)
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("network %q has a character other than a-z, 0-9 and '-'", name)
	}
	return nil
}

// VIPs say which virtual addresses a table has. The zero value is auto: the
// addresses of the services, except those with NoVIP. The document form is "auto"
// or the list.
type VIPs struct {
	Listed bool  // the addresses are those of List, which may be none
	List   []VIP // no address twice, at most MaxVIPs; in a Table sorted
}

// MarshalJSON writes "auto" or the list.
func (v VIPs) MarshalJSON() ([]byte, error) {
	if !v.Listed {
		return []byte(`"auto"`), nil
	}
	return json.Marshal(append([]VIP{}, v.List...))
}

// UnmarshalJSON reads "auto" or a list.
func (v *VIPs) UnmarshalJSON(b []byte) error {
	var word string
	if json.Unmarshal(b, &word) == nil {
		if err := v.UnmarshalText([]byte(word)); err != nil {
			return fmt.Errorf("vips: %w", err)
		}
		return nil
	}
	var list []VIP
	if b[0] != '[' {
		return errors.New("vips: want auto or a list of addresses")
	}
	if err := strictJSON(b, &list); err != nil {
		return fmt.Errorf("vips: %w", err)
	}
	*v = VIPs{Listed: true, List: list}
	return nil
}

// UnmarshalText reads "auto".
func (v *VIPs) UnmarshalText(b []byte) error {
	if string(b) != "auto" {
		return fmt.Errorf("%q is neither auto nor a list", b)
	}
	*v = VIPs{}
	return nil
}

// Validate reports every rule that v breaks, as joined FieldErrors with paths like
// "vips[2].address".
func (v VIPs) Validate() error {
	var f fields
	switch {
	case !v.Listed && len(v.List) > 0:
		f.addf("vips", "auto excludes a list")
	case len(v.List) > MaxVIPs:
		f.addf("vips", "%d addresses, the limit is %d", len(v.List), MaxVIPs)
	}
	if f.errs != nil {
		return f.err()
	}
	seen := make(map[netip.Addr]int, len(v.List))
	for i, vip := range v.List {
		path := fmt.Sprintf("vips[%d]", i)
		f.add(path+".address", checkVIP(vip.Prefix))
		if vip.Network != "" {
			f.add(path+".network", CheckNetwork(vip.Network))
		}
		addr := vip.Prefix.Addr()
		if first, twice := seen[addr]; twice && addr.IsValid() {
			f.addf(path+".address", "duplicate: %s is also vips[%d]", addr, first)
			continue
		}
		seen[addr] = i
	}
	return f.err()
}

// Equal reports whether v and o are the same; the order counts.
func (v VIPs) Equal(o VIPs) bool { return v.Listed == o.Listed && slices.Equal(v.List, o.List) }

// normalize returns v with its list sorted. It shares nothing with v that a caller
// may write to.
func (v VIPs) normalize() VIPs {
	v.List = slices.Clone(v.List)
	if len(v.List) == 0 {
		v.List = nil
	}
	slices.SortFunc(v.List, VIP.compare)
	return v
}

// VIPs returns the virtual addresses in the order of the addresses, IPv4 first.
// With auto it finds them among the services; an address that no host can have
// alone, because it is link-local or loopback, is none. The result is the
// caller's.
func (t Table) VIPs() []VIP {
	if t.vips.Listed {
		return slices.Clone(t.vips.List)
	}
	var vips []VIP
	for s := range t.Services() {
		if p := hostPrefix(s.Key.Addr); s.Key.FWMark == 0 && !s.NoVIP && checkVIP(p) == nil {
			vips = append(vips, VIP{Prefix: p})
		}
	}
	slices.SortFunc(vips, VIP.compare)
	return slices.Compact(vips)
}

// ListsVIPs reports whether the table lists its virtual addresses, rather than has them
// found among the services.
func (t Table) ListsVIPs() bool { return t.vips.Listed }

// SameVIPs reports whether VIPs returns the same for t and o, which was made from t
// or the other way round, without looking at the services. True is certain.
func (t Table) SameVIPs(o Table) bool {
	return t.vips.Equal(o.vips) && (t.vips.Listed || t.hosts == o.hosts)
}

// hostsDiffer reports whether VIPs may find another address in s than in o; nil is
// no service.
func hostsDiffer(s, o *Service) bool {
	return (s == nil) != (o == nil) || s != nil && s.NoVIP != o.NoVIP
}

// Negated is a bool whose document form is its opposite, for fields that are true
// unless a document says false.
type Negated bool

// MarshalJSON writes the opposite of n.
func (n Negated) MarshalJSON() ([]byte, error) { return json.Marshal(!bool(n)) }

// UnmarshalJSON reads true or false.
func (n *Negated) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true":
		*n = false
	case "false":
		*n = true
	default:
		return errors.New("want true or false")
	}
	return nil
}
