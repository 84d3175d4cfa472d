package vip

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const tableName = "ipvs-ha"

var (
	inetTable = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	arpTable  = &nftables.Table{Name: tableName, Family: nftables.TableFamilyARP}

	fenceTables = []*nftables.Table{inetTable, arpTable}

	// The ids are given here because the library would write them otherwise.
	vips4 = &nftables.Set{ID: 1, Table: inetTable, Name: "vips4", KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian}
	vips6 = &nftables.Set{ID: 2, Table: inetTable, Name: "vips6", KeyType: nftables.TypeIP6Addr, KeyByteOrder: binaryutil.BigEndian}
	// A set belongs to one table, so ARP has its own.
	arpVIPs = &nftables.Set{ID: 3, Table: arpTable, Name: "vips4", KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian}

	permit    = &nftables.Set{ID: 4, Table: inetTable, Name: "permit", KeyType: nftables.TypeNFProto, HasTimeout: true}
	arpPermit = &nftables.Set{ID: 5, Table: arpTable, Name: "permit", KeyType: nftables.TypeNFProto, HasTimeout: true}

	sets = []*nftables.Set{vips4, vips6, arpVIPs, permit, arpPermit}
)

// permits are the elements that are there while this host is the owner: one for
// each family, whatever the number of VIPs.
var permits = []struct {
	set  *nftables.Set
	keys []byte
}{
	{permit, []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}},
	{arpPermit, []byte{unix.NFPROTO_ARP}},
}

// guard is a base chain and the expressions of each of its rules.
type guard struct {
	chain *nftables.Chain
	rules [][]expr.Any
}

// The fence comes before IPVS, whose hooks in LOCAL_IN have priorities 98 and 99,
// and before the filters of the host.
var guards = nftables.ChainPriorityRaw

var chains = []guard{
	{
		base(inetTable, "input", nftables.ChainHookInput),
		[][]expr.Any{
			// To a VIP. A neighbour solicitation to a group passes; the answer does not.
			drop(ipv4, load(l3, 16, 4), in(vips4)),
			drop(ipv6, load(l3, 24, 16), in(vips6)),
		},
	},
	{
		base(inetTable, "output", nftables.ChainHookOutput),
		[][]expr.Any{
			// From a VIP. A neighbour solicitation from it would make its sender known too.
			drop(ipv4, load(l3, 12, 4), in(vips4)),
			drop(ipv6, load(l3, 8, 16), in(vips6)),
			// About a VIP: the target of a neighbour advertisement.
			drop(ipv6, protocol(unix.IPPROTO_ICMPV6), load(l4, 0, 1), equal(neighbourAdvertisement), load(l4, 8, 16), in(vips6)),
		},
	},
	{
		base(arpTable, "output", nftables.ChainHookRef(1)), // NF_ARP_OUT
		[][]expr.Any{
			// Requests and replies that name a VIP as their sender.
			drop(arp, load(l3, 14, 4), in(arpVIPs)),
		},
	},
}

const neighbourAdvertisement = 136 // ICMPv6 type

// Kept short for the list above.
const (
	ipv4 = unix.NFPROTO_IPV4
	ipv6 = unix.NFPROTO_IPV6
	arp  = unix.NFPROTO_ARP

	l3 = expr.PayloadBaseNetworkHeader
	l4 = expr.PayloadBaseTransportHeader

	register = unix.NFT_REG_1
)

func base(t *nftables.Table, name string, hook *nftables.ChainHook) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return &nftables.Chain{Table: t, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: guards, Policy: &policy}
}

// drop returns a rule that counts and drops packets of a family that match, unless
// the family has a permit.
func drop(family byte, match ...[]expr.Any) []expr.Any {
	allowed := permit
	if family == arp {
		allowed = arpPermit
	}
	nfproto := &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}
	rule := []expr.Any{nfproto, &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{family}}}
	for _, m := range match {
		rule = append(rule, m...)
	}
	return append(rule,
		nfproto, &expr.Lookup{SourceRegister: register, SetName: allowed.Name, Invert: true},
		&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

func load(base expr.PayloadBase, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}}
}

func in(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: s.Name}}
}

func equal(value byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{value}}}
}

func protocol(number byte) []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}}, equal(number)...)
}

// elementsOf sorts addresses into the sets that hold them.
func elementsOf(addrs []netip.Addr) map[*nftables.Set][]nftables.SetElement {
	elements := map[*nftables.Set][]nftables.SetElement{}
	for _, a := range addrs {
		e := nftables.SetElement{Key: a.AsSlice()}
		if a.Is4() {
			elements[vips4] = append(elements[vips4], e)
			elements[arpVIPs] = append(elements[arpVIPs], e)
		} else {
			elements[vips6] = append(elements[vips6], e)
		}
	}
	return elements
}

func addElements(c *nftables.Conn, addrs []netip.Addr) error {
	for s, elements := range elementsOf(addrs) {
		for chunk := range slices.Chunk(elements, maxElements) {
			if err := c.SetAddElements(s, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

// claim is the key of the element that the first permit is given for. No packet is of
// that family.
const claim = unix.NFPROTO_UNSPEC

// addPermits adds the elements that let packets through for d.
func addPermits(c *nftables.Conn, d time.Duration) error {
	var errs []error
	for _, p := range permits {
		errs = append(errs, c.SetAddElements(p.set, elementsFor(d, p.keys...)))
	}
	return errors.Join(errs...)
}

// addClaims adds the elements that the first permit within d is given for.
func addClaims(c *nftables.Conn, d time.Duration) error {
	var errs []error
	for _, p := range permits {
		errs = append(errs, c.SetAddElements(p.set, elementsFor(d, claim)))
	}
	return errors.Join(errs...)
}

func flushPermits(c *nftables.Conn) {
	for _, p := range permits {
		c.FlushSet(p.set)
	}
}

// deletePermits fails when one has ended.
func deletePermits(c *nftables.Conn) error {
	var errs []error
	for _, p := range permits {
		errs = append(errs, c.SetDeleteElements(p.set, elementsFor(0, p.keys...)))
	}
	return errors.Join(errs...)
}

// deleteClaims fails when one has ended.
func deleteClaims(c *nftables.Conn) error {
	var errs []error
	for _, p := range permits {
		errs = append(errs, c.SetDeleteElements(p.set, elementsFor(0, claim)))
	}
	return errors.Join(errs...)
}

func elementsFor(d time.Duration, keys ...byte) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, key := range keys {
		elements = append(elements, nftables.SetElement{Key: []byte{key}, Timeout: d})
	}
	return elements
}
