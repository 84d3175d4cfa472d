package vip

import (
	"context"
	"net"
	"net/netip"

	vlink "github.com/vishvananda/netlink"
)

// NextHops implements routes, for all tables of both families: policies and VRFs have
// tables of their own.
func (n *rtnetlink) NextHops(ctx context.Context) (map[netip.Addr]bool, error) {
	hops := map[netip.Addr]bool{}
	note := func(gateway net.IP, via vlink.Destination) {
		if a, ok := netip.AddrFromSlice(gateway); ok {
			hops[a.Unmap()] = true
		}
		if via, ok := via.(*vlink.Via); ok {
			if a, ok := netip.AddrFromSlice(via.Addr); ok {
				hops[a.Unmap()] = true
			}
		}
	}
	for _, family := range []int{vlink.FAMILY_V4, vlink.FAMILY_V6} {
		_, err := dump("routes", func() ([]vlink.Route, error) {
			// A route at a time: a list of a million would take hundreds of megabytes.
			return nil, n.handle.RouteListFilteredIter(family, &vlink.Route{}, vlink.RT_FILTER_TABLE, func(r vlink.Route) bool {
				note(r.Gw, r.Via)
				for _, m := range r.MultiPath {
					note(m.Gw, m.Via)
				}
				return ctx.Err() == nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return hops, nil
}
