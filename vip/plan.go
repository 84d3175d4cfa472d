package vip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ipvs-ha/ipvs-ha/fault"
)

// addressLife is the life that our addresses get. It outlives every renewal of the
// lease; what stops packets on time is the fence. The kernel counts whole seconds.
const addressLife = 5 * time.Second

// rules are what decides which addresses this host may take.
type rules struct {
	allow   []netip.Prefix // empty: the networks of the address's interface
	claimed map[Address]bool
	hops    map[netip.Addr]bool // next hops of the host's routes; nil: not known yet
}

// plan is what to do about the addresses of a host.
type plan struct {
	add      []Address
	renew    []Address
	remove   []Address
	held     []Address // ours, wanted and there
	ours     []Address // ours and there
	foreign  map[netip.Addr]bool
	down     []string // interfaces of VIPs that carry nothing, sorted
	problems []fault.Fault
}

// makePlan compares what the host has with what is wanted of it. Addresses are
// wanted there only by an owner; problems are found either way, so that a standby
// knows before it is too late.
func makePlan(h host, all []Address, owner bool, r rules) plan {
	p := plan{foreign: map[netip.Addr]bool{}}
	names := map[int]string{}
	for _, l := range h.links {
		names[l.Index] = l.Name
	}
	left := make(map[Address]time.Duration, len(h.addresses)) // of ours
	others := map[netip.Addr]Address{}
	for _, ha := range h.addresses {
		a := Address{Prefix: ha.Prefix, Interface: names[ha.Index]}
		// A life that we never give is not from us, whatever the record says.
		if r.claimed[a] && ha.Valid <= addressLife {
			left[a] = ha.Valid
			p.ours = append(p.ours, a)
			continue
		}
		others[ha.Prefix.Addr()] = a
		p.foreign[ha.Prefix.Addr()] = true
	}
	wanted := make(map[Address]bool, len(all))
	seen := make(map[netip.Addr]bool, len(all))
	for _, a := range all {
		if seen[a.Addr()] {
			p.problem(a, "it is listed twice")
			continue
		}
		seen[a.Addr()] = true
		if l := h.links[a.Interface]; !l.Up || !l.Carrier {
			p.down = append(p.down, a.Interface)
		}
		valid, held := left[a]
		if reason := obstacle(h, a, others, r); reason != "" {
			p.problem(a, reason)
			// What we hold already stays, for dropping it helps nobody, unless a route
			// leads through it: what that is for goes astray.
			if !held || h.links[a.Interface].Name == "" || r.hops[a.Addr()] {
				continue
			}
		}
		if !owner {
			continue
		}
		wanted[a] = true
		switch {
		case !held:
			p.add = append(p.add, a)
		case valid <= addressLife/2:
			p.renew = append(p.renew, a)
		}
		if held {
			p.held = append(p.held, a)
		}
	}
	// The kernel's own worker makes an IPv6 address usable after it was added, beside
	// those that are added next.
	slices.SortStableFunc(p.add, func(a, b Address) int { return cmp.Compare(b.Addr().BitLen(), a.Addr().BitLen()) })
	for _, a := range p.ours {
		if !wanted[a] {
			p.remove = append(p.remove, a)
		}
	}
	slices.Sort(p.down)
	p.down = slices.Compact(p.down)
	return p
}

func (p *plan) problem(a Address, reason string) {
	p.problems = append(p.problems, fault.Fault{Object: a.String(), Message: reason})
}

// obstacle says why this host must not or cannot take a, "" for no reason.
func obstacle(h host, a Address, others map[netip.Addr]Address, r rules) string {
	l, ok := h.links[a.Interface]
	if !ok {
		return "there is no interface " + a.Interface
	}
	if r.hops[a.Addr()] {
		return "a route of this host leads through it"
	}
	if o, ok := others[a.Addr()]; ok {
		return fmt.Sprintf("the host has it by other means, as %s on %s: remove it there, or from the VIPs", o.Prefix, o.Interface)
	}
	if !r.allows(h, l, a) {
		if len(r.allow) > 0 {
			return "the configuration of this node does not allow it"
		}
		return fmt.Sprintf("no network of interface %s contains it: allow it in the configuration of this node", a.Interface)
	}
	switch {
	case r.hops == nil:
		return "the routes of this host are not known yet"
	case !r.claimed[a]:
		return "it is not in the record of this node's addresses yet"
	case !l.Up:
		return "interface " + a.Interface + " is switched off"
	case !l.Carrier:
		return "interface " + a.Interface + " has no carrier"
	}
	return ""
}

// allows reports whether a is within what this node may take.
func (r rules) allows(h host, l link, a Address) bool {
	if len(r.allow) > 0 {
		return slices.ContainsFunc(r.allow, func(p netip.Prefix) bool { return p.Contains(a.Addr()) })
	}
	return slices.ContainsFunc(h.addresses, func(ha hostAddress) bool {
		return ha.Index == l.Index && !ha.Prefix.IsSingleIP() && ha.Prefix.Masked().Contains(a.Addr()) &&
			!r.claimed[Address{Prefix: ha.Prefix, Interface: l.Name}]
	})
}
