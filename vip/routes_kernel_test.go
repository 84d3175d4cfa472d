package vip

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

func TestKernelNextHops(t *testing.T) {
	b := newBench(t)
	for _, route := range []string{
		"default via 10.9.0.1",
		"10.50.0.0/24 via 10.9.0.2 table 100",
		"10.51.0.0/24 nexthop via 10.9.0.3 nexthop via 10.9.0.4",
		"10.52.0.0/24 via inet6 2001:db8::5 dev eth0",
		"10.53.0.0/24 nexthop via 10.9.0.1 nexthop via inet6 2001:db8::6 dev eth0",
		"10.54.0.0/24 dev eth0",
	} {
		b.in(b.director, "ip route add "+route)
	}
	b.in(b.director, "ip -6 route add 2001:db8:7::/64 via 2001:db8::7 table 100")
	b.in(b.director, "ip -6 route add 2001:db8:8::/64 nexthop via 2001:db8::8 nexthop via 2001:db8::9")
	b.in(b.director, "echo 0 >/proc/sys/net/ipv4/nexthop_compat_mode")
	for object, via := range map[string]string{"1": "10.9.0.10", "2": "2001:db8::10"} {
		b.in(b.director, "ip nexthop add id "+object+" via "+via+" dev eth0")
	}
	b.in(b.director, "ip route add 10.55.0.0/24 nhid 1; ip -6 route add 2001:db8:9::/64 nhid 2")
	want := "10.9.0.1 10.9.0.2 10.9.0.3 10.9.0.4 10.9.0.10 2001:db8::5 2001:db8::6 2001:db8::7 2001:db8::8 2001:db8::9 2001:db8::10"
	b.inside(b.director, func() error {
		n, err := openNetwork()
		if err != nil {
			return err
		}
		defer n.close()
		hops, err := n.NextHops(t.Context())
		got := strings.Trim(fmt.Sprint(slices.SortedFunc(maps.Keys(hops), netip.Addr.Compare)), "[]")
		if err == nil && got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		return err
	})
}

// TestKernelRouteThroughAVIP: routes come and go while this host may take the address
// at any moment, in the table that the kernel looks into for all, and in another.
func TestKernelRouteThroughAVIP(t *testing.T) {
	for _, table := range []string{"main", "100"} {
		t.Run(table, func(t *testing.T) {
			b := newBench(t)
			all := addresses(vip4, vip6)
			b.keep(Config{Fence: true})
			b.standby(all...)
			b.in(b.director, "ip route add default via 10.9.0.100 table "+table)
			b.status("the first is refused", func(s Status) bool { return s.ErrorCount == 1 && s.Errors[0].Object == vip4 })
			b.in(b.director, "ip -6 route add 2001:db8:1::/64 via 2001:db8::100 table "+table)
			b.status("both are refused", func(s Status) bool { return s.ErrorCount == 2 })
			b.k.Set(all, boottime.Now()+time.Minute)
			b.status("an owner of nothing", func(s Status) bool { return s.Owner && s.HeldCount == 0 })
			b.in(b.director, "ip route del default via 10.9.0.100 table "+table)
			b.status("the first is taken", func(s Status) bool { return s.HeldCount == 1 && s.ErrorCount == 1 })
			b.awaitAccepted(all[0].Addr())
			b.in(b.director, "ip -6 route del 2001:db8:1::/64 table "+table)
			b.status("both are taken", func(s Status) bool { return s.HeldCount == 2 && s.ErrorCount == 0 })
			if out := b.in(b.director, "ip -o addr"); !strings.Contains(out, "10.9.0.100") || !strings.Contains(out, "db8::100") {
				t.Errorf("taken, but not there:\n%s", out)
			}
		})
	}
}

// TestKernelNoticesNextHops: what an address brings along is no reason to read routes.
func TestKernelNoticesNextHops(t *testing.T) {
	b := newBench(t)
	heard := b.hints(func() (events, error) {
		e, err := openRouteEvents(func(m netlink.Message) bool {
			if m.Header.Type <= unix.RTM_DELROUTE && m.Data[7] == unix.RTN_LOCAL { // rtm_type
				t.Errorf("a route of an address wakes the process: %v", m)
			}
			return hasNextHop(m)
		})
		e.rest = 0 // that what is too much is counted too
		return e, err
	})
	b.in(b.director, "ip addr add 10.9.0.100/32 dev eth0; ip addr add 2001:db8::100/128 dev eth0 nodad; ip addr add 10.8.0.1/24 dev eth0")
	for _, route := range []string{"10.50.0.0/24 via 10.9.0.1", "10.51.0.0/24 nexthop via 10.9.0.3 nexthop via 10.9.0.4", "10.52.0.0/24 via inet6 2001:db8::5 dev eth0"} {
		for _, verb := range []string{"add", "del"} {
			b.in(b.director, "ip route "+verb+" "+route)
			select {
			case <-heard:
			case <-time.After(patience):
				t.Fatalf("%s %s is not heard of", verb, route)
			}
		}
	}
	select {
	case <-heard:
		t.Error("heard of more than was")
	default:
	}
}
