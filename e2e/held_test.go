package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Services of each forwarding method and address family. Real servers behind NAT are
// in a network of their own, whose gateway floats with the VIPs.
const heldTable = `
vips:
  - {address: 10.9.0.100}
  - {address: 10.9.0.101}
  - {address: 10.9.0.102}
  - {address: "fd09::100"}
  - {address: "fd09::101"}
  - {address: "fd09::102"}
  - {address: 10.1.0.1/24, network: inside}
  - {address: "fd01::1/64", network: inside}
services:
  - service: tcp://10.9.0.100:80
    scheduler: rr
    destinations: [{address: "10.9.0.21:80", forward: droute}, {address: "10.9.0.22:80", forward: droute}]
  - service: tcp://10.9.0.101:80
    scheduler: rr
    destinations: [{address: "10.1.0.21:80", forward: masq}, {address: "10.1.0.22:80", forward: masq}]
  - service: tcp://10.9.0.102:80
    scheduler: rr
    destinations: [{address: "10.9.0.21:80", forward: tunnel}, {address: "10.9.0.22:80", forward: tunnel}]
  - service: tcp://[fd09::100]:80
    scheduler: rr
    destinations: [{address: "[fd09::21]:80", forward: droute}, {address: "[fd09::22]:80", forward: droute}]
  - service: tcp://[fd09::101]:80
    scheduler: rr
    destinations: [{address: "[fd01::21]:80", forward: masq}, {address: "[fd01::22]:80", forward: masq}]
  - service: tcp://[fd09::102]:80
    scheduler: rr
    destinations: [{address: "[fd09::21]:80", forward: tunnel}, {address: "[fd09::22]:80", forward: tunnel}]
`

var heldServices = []netip.AddrPort{
	netip.MustParseAddrPort("10.9.0.100:80"), netip.MustParseAddrPort("[fd09::100]:80"), // direct routing
	netip.MustParseAddrPort("10.9.0.101:80"), netip.MustParseAddrPort("[fd09::101]:80"), // NAT
	netip.MustParseAddrPort("10.9.0.102:80"), netip.MustParseAddrPort("[fd09::102]:80"), // tunnel
}

// heldLab is a cluster with real servers for heldTable and a client, c2.
func heldLab(t testing.TB, profile string) cluster {
	t.Helper()
	c := newCluster(t, heldTable, profile)
	inside := c.bridge + "i"
	c.addBridge(inside)
	for i, n := range c.nodes {
		n.config = "vip: {interface: eth0, networks: {inside: eth1}}\n"
		c.address(n.ns, "eth0", fmt.Sprintf("fd09::%d/64", 11+i))
		c.link(inside, n.ns, "eth1", fmt.Sprintf("10.1.0.%d/24", 11+i), fmt.Sprintf("fd01::%d/64", 11+i))
		c.sysctl(n.ns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1") // the way back from NAT
	}
	for _, last := range []string{"21", "22"} {
		c.realServer("r"+last, "10.9.0."+last, "10.9.0.100", "10.9.0.102")
		r := c.prefix + "r" + last
		c.address(r, "eth0", "fd09::"+last+"/64")
		c.address(r, "lo", "fd09::100/128", "fd09::102/128")
		for _, tunnel := range []string{"tunl0", "ip6tnl0"} {
			c.run("ip", "-n", r, "link", "set", tunnel, "up")
		}
		c.sysctl(r, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.tunl0.rp_filter=0")

		behind := c.prefix + "n" + last
		c.namespace(behind)
		c.link(inside, behind, "eth0", "10.1.0."+last+"/24", "fd01::"+last+"/64")
		c.run("ip", "-n", behind, "route", "add", "default", "via", "10.1.0.1")
		c.run("ip", "-n", behind, "-6", "route", "add", "default", "via", "fd01::1")
		c.serve(behind)
	}
	c.host(c.prefix+"c2", "10.9.0.51")
	c.address(c.prefix+"c2", "eth0", "fd09::51/64")
	return c
}

// realServer is a host that answers for VIPs without saying so.
func (l *lab) realServer(name, address string, vips ...string) {
	l.t.Helper()
	ns := l.prefix + name
	l.host(ns, address)
	l.sysctl(ns, "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
	for _, vip := range vips {
		l.address(ns, "lo", vip+"/32")
	}
	l.serve(ns)
}

func (l *lab) sysctl(ns string, settings ...string) {
	l.t.Helper()
	l.run("ip", append([]string{"netns", "exec", ns, "sysctl", "-qw"}, settings...)...)
}

// TestHeldConnections moves the VIPs in every way while a client holds 200
// connections, and expects that all survive that are old enough to be known to the
// standbys. A connection is dead when it is reset, or has had no echo for 10 s.
//
// The leases are long: the traffic keeps an emulated kernel busy, and this is about
// connections, not about time.
func TestHeldConnections(t *testing.T) {
	c := heldLab(t, "wan")
	c.start()
	client := c.prefix + "c2"
	h := c.hold(client, 200, heldServices...)
	come := c.newcomers(client, 20*time.Millisecond, heldServices...)
	for _, what := range []event{transfer, sigterm, kill9, sigstop, hostLoss, rollingRestart} {
		former := c.owner()
		h.pause <- true
		struck := time.Now()
		if what == rollingRestart {
			for _, n := range c.nodes { // and the next before this one is eligible, unlike strike
				c.strike(sigterm, n)
				c.heal(sigterm, n)
				c.awaitWhole()
			}
		} else {
			c.strike(what, former)
			c.awaitOther(former)
		}
		served := come.awaitServed(c.lab, time.Now())
		s := h.survey(struck, served)
		gap, _ := come.gap(struck, served)
		t.Logf("%s of %s: %v; nobody new was served for %v", what, former.name, s, gap)
		if len(s.deaths) > 0 {
			t.Errorf("%s: %d old connections died:\n%s", what, len(s.deaths), strings.Join(s.deaths, "\n"))
		}
		if what != rollingRestart {
			c.heal(what, former)
		}
		c.awaitWhole()
		h.pause <- false
		h.awaitMature()
	}
}

// awaitOther waits until a director other than former has the VIPs.
func (l *lab) awaitOther(former *node) {
	l.t.Helper()
	l.await("owner other than "+former.name, func() error {
		for _, n := range l.others(former) {
			if strings.Contains(l.run("ip", "-n", n.ns, "addr", "show", "eth0"), "10.9.0.100/32") {
				return nil
			}
		}
		return errors.New("none")
	})
}
