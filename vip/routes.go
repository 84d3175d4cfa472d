package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	vlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NextHops implements routes, for all tables of both families: policies and VRFs have
// tables of their own.
func (n *rtnetlink) NextHops(ctx context.Context) (map[netip.Addr]bool, error) {
	hops, err := n.nextHopObjects()
	if err != nil {
		return nil, err
	}
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

// nextHopObjects returns the gateways of objects that routes may refer to: with sysctl
// net.ipv4.nexthop_compat_mode=0 a route does not name them itself.
func (n *rtnetlink) nextHopObjects() (_ map[netip.Addr]bool, err error) {
	defer func() {
		if err != nil {
			n.drop()
			err = fmt.Errorf("list the next hops: %w", err)
		}
	}()
	if err := n.dial(); err != nil {
		return nil, err
	}
	if err := n.conn.SetDeadline(time.Now().Add(netlinkTimeout)); err != nil {
		return nil, err
	}
	const header = 8 // struct nhmsg
	hops := map[netip.Addr]bool{}
	objects, err := n.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEXTHOP, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, header),
	})
	if errors.Is(err, unix.EOPNOTSUPP) { // before Linux 5.3
		return hops, nil
	} else if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if len(o.Data) < header {
			continue
		}
		attributes, err := netlink.NewAttributeDecoder(o.Data[header:])
		if err != nil {
			return nil, err
		}
		for attributes.Next() {
			if attributes.Type() != unix.NHA_GATEWAY {
				continue
			}
			if a, ok := netip.AddrFromSlice(attributes.Bytes()); ok {
				hops[a] = true
			}
		}
		if err := attributes.Err(); err != nil {
			return nil, err
		}
	}
	return hops, nil
}
