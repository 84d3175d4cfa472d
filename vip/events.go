package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	linkGroups  = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	routeGroups = 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) | 1<<(unix.RTNLGRP_NEXTHOP-1)
)

// maxDrained is more than a socket holds.
const maxDrained = 10_000

// events is a socket that hears of changes.
type events struct {
	conn    *netlink.Conn
	matters func(netlink.Message) bool // nil: all do
	rest    time.Duration              // after one that does, as long as nobody looks again anyway
}

func openLinkEvents() (events, error) { return openEvents(linkGroups, nil, lookGap, nil) }

func openRouteEvents(matters func(netlink.Message) bool) (events, error) {
	return openEvents(routeGroups, matters, routesGap, noAddressRoutes)
}

// openEvents opens a socket that is told of what is in groups and passes a filter.
func openEvents(groups uint32, matters func(netlink.Message) bool, rest time.Duration, filter []bpf.Instruction) (events, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err == nil && filter != nil {
		var raw []bpf.RawInstruction
		if raw, err = bpf.Assemble(filter); err == nil {
			err = conn.SetBPF(raw)
		}
		if err != nil {
			_ = conn.Close()
		}
	}
	if err != nil {
		return events{}, fmt.Errorf("subscribe to changes of interfaces and routes: %w", err)
	}
	return events{conn, matters, rest}, nil
}

// noAddressRoutes keeps out the routes that each address of a host has in table local,
// hundreds when VIPs move: none of them leads through another address.
var noAddressRoutes = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 4, Size: 2}, // nlmsg_type
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: loaded(unix.RTM_NEWROUTE), SkipTrue: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: loaded(unix.RTM_DELROUTE), SkipTrue: 4},
	bpf.LoadAbsolute{Off: unix.SizeofNlMsghdr + 7, Size: 1}, // rtm_type
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTN_LOCAL, SkipTrue: 3},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTN_BROADCAST, SkipTrue: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTN_ANYCAST, SkipTrue: 1},
	bpf.RetConstant{Val: math.MaxUint32},
	bpf.RetConstant{Val: 0},
}

// loaded is what a filter, which takes all for big endian, loads for a number of the
// kernel's.
func loaded(v uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
}

func (e events) close() { _ = e.conn.Close() }

// run calls changed at each change that matters until ctx is done. What was lost,
// because too much changed at once, counts as one: what is heard is only a hint.
func (e events) run(ctx context.Context, changed func()) {
	stop := context.AfterFunc(ctx, func() { _ = e.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer func() { stop(); e.close() }()
	for {
		messages, err := e.conn.Receive()
		if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
			return
		}
		for more := err != nil || e.matters == nil || slices.ContainsFunc(messages, e.matters); more; more = e.drain() {
			changed()
			if !sleep(ctx, e.rest, nil) {
				return
			}
		}
	}
}

// drain drops what has come during a rest, and reports whether there was anything, or
// more than the socket could hold.
func (e events) drain() (more bool) {
	raw, err := e.conn.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Read(func(fd uintptr) bool {
		var buffer [1]byte // what does not fit is dropped
		for range maxDrained {
			_, _, err := unix.Recvfrom(int(fd), buffer[:], unix.MSG_DONTWAIT)
			if err == unix.EAGAIN {
				break
			}
			more = true
		}
		return true
	})
	return more
}

// hasNextHop reports whether a message is about a route that leads through an
// address. Those that each address of a host has, VIPs too, do not.
func hasNextHop(m netlink.Message) bool {
	const (
		routeHeader = 12 // struct rtmsg
		nextHopID   = 30 // RTA_NH_ID
	)
	switch m.Header.Type {
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		return true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
	default:
		return false
	}
	if len(m.Data) < routeHeader {
		return false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[routeHeader:])
	if err != nil {
		return true
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH, nextHopID:
			return true
		}
	}
	return attributes.Err() != nil
}
