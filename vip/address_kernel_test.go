package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

func TestKernelAddresses(t *testing.T) {
	b := newBench(t)
	all := addresses(vip4, vip6)
	b.keep(Config{Fence: true})
	b.standby(all...)
	b.own(time.Minute, all...)
	for _, a := range all {
		line := b.in(b.director, "ip -o addr show to "+a.Prefix.String())
		if !strings.Contains(line, "valid_lft 5sec") && !strings.Contains(line, "valid_lft 4sec") || !strings.Contains(line, "noprefixroute") || strings.Contains(line, "tentative") {
			t.Errorf("%s", line)
		}
	}
	for i, a := range all {
		b.in(b.director, "ip addr del "+a.Prefix.String()+" dev eth0")
		b.status("back", func(s Status) bool { return s.AddressesRepaired == uint64(i+1) && s.HeldCount == 2 })
		b.awaitAccepted(a.Addr())
	}
	b.in(b.director, "ip link set eth0 down")
	b.status("link down is said", func(s Status) bool { return s.ErrorCount == 2 })
	b.in(b.director, "ip link set eth0 up; ip addr replace 2001:db8::11/64 dev eth0 nodad") // which the kernel removed
	b.status("link up again", func(s Status) bool { return s.ErrorCount == 0 && s.HeldCount == 2 })
	b.awaitAccepted(all[0].Addr())
	// The lives are renewed: still there when the first has long ended.
	deadline := time.NewTimer(addressLife + 2*time.Second)
	<-deadline.C
	if s := b.k.Status(); s.HeldCount != 2 || s.AddressesRepaired > 4 {
		t.Errorf("after %s: %+v", addressLife, s)
	}
	for _, a := range all {
		b.awaitAccepted(a.Addr())
	}
}

func TestKernelForeignAddresses(t *testing.T) {
	b := newBench(t)
	b.in(b.director, "ip route add default via 10.9.0.1; ip addr add 10.9.0.101/24 dev eth0; ip addr add 10.9.0.102/32 dev lo")
	good, gateway, own, lo := address(vip4), address("10.9.0.1/32@eth0"), address("10.9.0.101/32@eth0"), address("10.9.0.102/32@eth0")
	b.keep(Config{Fence: true})
	all := []Address{good, gateway, own, lo}
	b.k.Set(all, 0)
	b.status("obstacles", func(s Status) bool { return s.ErrorCount == 3 && !strings.Contains(fmt.Sprint(s.Errors), "record") })
	before := b.in(b.director, "ip -o addr show scope global")
	b.k.Set(all, boottime.Now()+time.Minute)
	b.status("owner", func(s Status) bool { return s.Owner && s.HeldCount == 1 && s.ErrorCount == 3 })
	b.awaitAccepted(own.Addr())
	b.stop()
	if after := b.in(b.director, "ip -o addr show scope global"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// TestKernelLastSecond: an address whose life is all but over is no address without
// end, which would be somebody else's. The kernel removes addresses up to a second
// late, so that some of many are seen with nothing left.
func TestKernelLastSecond(t *testing.T) {
	for _, format := range []string{"10.9.1.%d/32", "2001:db8::1:%d/128"} {
		b := newBench(t)
		b.network(func(n *rtnetlink, h host) error {
			ours := map[netip.Prefix]bool{}
			shortest := addressLife
			for begun := boottime.Now(); boottime.Now()-begun < 5*time.Second; {
				if i := len(ours); i < 40 {
					prefix := netip.MustParsePrefix(fmt.Sprintf(format, i+1))
					ours[prefix] = true
					if errs := n.Apply([]change{{kind: add, prefix: prefix, index: h.links["eth0"].Index, life: time.Second}}); errs != nil {
						return errs[0]
					}
				}
				now, err := n.Look()
				if err != nil {
					return err
				}
				for _, a := range now.addresses {
					switch {
					case !ours[a.Prefix]:
					case a.Valid > time.Second:
						return fmt.Errorf("%s has a life of %v", a.Prefix, a.Valid)
					default:
						shortest = min(shortest, a.Valid)
					}
				}
			}
			if shortest != 0 {
				return fmt.Errorf("no address was seen with less than %v to live, so this test saw nothing", shortest)
			}
			return nil
		})
	}
}

// TestKernelFailures: of many changes in a few system calls each fails by itself, the last
// in a call and others, and those that the kernel does not answer have been made.
func TestKernelFailures(t *testing.T) {
	for _, format := range []string{"10.9.1.%d/32", "2001:db8::1:%x/128"} {
		b := newBench(t)
		b.network(func(n *rtnetlink, h host) error {
			var all, there []change
			for i := range 2 * maxBatch { // the last of one call is there, that of the other is not
				all = append(all, change{kind: add, prefix: netip.MustParsePrefix(fmt.Sprintf(format, i+1)), index: h.links["eth0"].Index, life: time.Minute})
				if i%3 == 0 {
					there = append(there, all[i])
				}
			}
			if errs := n.Apply(there); errs != nil {
				return errors.Join(errs...)
			}
			for i, err := range n.Apply(all) {
				if i%3 == 0 && !errors.Is(err, os.ErrExist) || i%3 != 0 && err != nil {
					t.Errorf("%s, which is there: %t: %v", all[i].prefix, i%3 == 0, err)
				}
			}
			now, err := n.Look()
			if added := len(now.addresses) - len(h.addresses); err != nil || added != len(all) {
				t.Errorf("%d addresses were added, of %d: %v", added, len(all), err)
			}
			return nil
		})
	}
}

func TestKernelHundreds(t *testing.T) {
	b := newBench(t)
	var all []Address
	for i := range 250 {
		all = append(all, address(fmt.Sprintf("10.9.1.%d/32@eth0", i+1)))
	}
	for i := range 50 {
		all = append(all, address(fmt.Sprintf("2001:db8::1:%x/128@eth0", i+1)))
	}
	b.keep(Config{Fence: true, Allow: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}})
	b.standby(all[0])
	start := time.Now()
	b.own(time.Minute, all[0])
	one := time.Since(start)
	b.standby(all...)
	start = time.Now()
	b.own(time.Minute, all...)
	took := time.Since(start)
	for _, a := range all {
		b.awaitAccepted(a.Addr())
	}
	start = time.Now()
	b.k.Set(all, 0)
	b.status("standby", func(s Status) bool { return s.Fence == FenceShut && !s.Owner })
	if b.accepts(all[0].Addr()) {
		t.Error("a standby accepts a packet")
	}
	b.status("all away", func(s Status) bool { return s.HeldCount == 0 })
	t.Logf("one address %v, 300 addresses %v, away %v", one, took, time.Since(start))
	if out := b.in(b.director, "ip -o addr"); strings.Contains(out, "10.9.1.") || strings.Contains(out, "::1:") {
		t.Errorf("left:\n%s", out)
	}
}

func TestKernelRelease(t *testing.T) {
	b := newBench(t)
	all := addresses(vip4, vip6)
	b.keep(Config{Fence: true})
	b.standby(all...)
	b.own(time.Minute, all...)
	b.stop()
	// What a killed keeper leaves.
	b.inside(b.director, func() error {
		n, err := openNetwork()
		if err != nil {
			return err
		}
		defer n.close()
		h, err := n.Look()
		if err != nil {
			return err
		}
		for _, a := range all {
			if errs := n.Apply([]change{{kind: add, prefix: a.Prefix, index: h.links["eth0"].Index, life: addressLife}}); errs != nil {
				return errs[0]
			}
		}
		return (&nft{}).Permit(time.Minute)
	})
	b.awaitAccepted(all[0].Addr()) // or the test would see nothing
	b.in(b.director, "ip addr add 10.9.0.101/32 dev eth0 valid_lft 3 preferred_lft 3")
	for range 2 {
		b.inside(b.director, func() error { return Release(b.dir) })
		out := b.in(b.director, "ip -o addr")
		if strings.Contains(out, "10.9.0.100") || strings.Contains(out, "db8::100") {
			t.Errorf("left:\n%s", out)
		}
	}
	if out := b.in(b.director, "ip -o addr"); !strings.Contains(out, "10.9.0.101") {
		t.Error("an address of others was removed")
	}
	if out := b.in(b.director, "nft list tables"); strings.Contains(out, tableName) {
		t.Errorf("the fence is left:\n%s", out)
	}
	b.in(b.director, "ip addr add 10.9.0.100/32 dev eth0") // as an operator may who does without the cluster
	b.awaitAccepted(all[0].Addr())
	b.inside(b.client, func() error { return Release(t.TempDir()) }) // nothing there
	b.unprivileged(func() error { return Release(t.TempDir()) })
}

func TestKernelAnnouncements(t *testing.T) {
	for _, text := range both {
		t.Run(text, func(t *testing.T) {
			b := newBench(t)
			v := address(text)
			b.keep(Config{Fence: true})
			b.standby(v)
			announced := func(d time.Duration) bool {
				return b.hear(d, func(f []byte) bool {
					who, mac, ok := spokenFor(f)
					return ok && who == v.Addr() && mac.String() == b.mac.String() && f[0]&1 == 1
				})
			}
			b.own(time.Minute, v)
			for i := range 5 {
				if !announced(patience) {
					t.Fatalf("announcement %d does not come", i+1)
				}
			}
			if announced(time.Second) {
				t.Error("a sixth at once")
			}
			// Somebody else says that it is theirs.
			frame, to := announcement(v.Addr(), net.HardwareAddr{2, 0, 0, 0, 0, 99}, false)
			if _, err := b.probe.WriteTo(frame, &packet.Addr{HardwareAddr: to}); err != nil {
				t.Fatal(err)
			}
			if !announced(patience) {
				t.Error("a foreign announcement is not answered")
			}
			b.status("counted", func(s Status) bool { return s.ForeignAnnouncements == 1 })
			b.k.Set([]Address{v}, 0)
			b.status("standby", func(s Status) bool { return !s.Owner })
			b.hear(50*time.Millisecond, func([]byte) bool { return false }) // what was underway
			if announced(2 * time.Second) {
				t.Error("a standby announces")
			}
		})
	}
}

// TestKernelManyChanges: hundreds of changes are a few reasons to look, and none is
// left that would be one later.
func TestKernelManyChanges(t *testing.T) {
	b := newBench(t)
	heard := b.hints(openLinkEvents)
	began := time.Now()
	b.in(b.director, "for i in $(seq 1 250); do echo addr add 10.8.0.$i/32 dev eth0; done | ip -batch -")
	hints := 0
	for quiet := false; !quiet; {
		select {
		case <-heard:
			hints++
		case <-time.After(5 * lookGap):
			quiet = true
		}
	}
	if most := int(time.Since(began) / lookGap); hints == 0 || hints > most || time.Since(began) > patience/2 {
		t.Errorf("%d hints, want 1 to %d, in %v", hints, most, time.Since(began))
	}
}

// TestKernelHears: what is said while it does not matter reaches no one.
func TestKernelHears(t *testing.T) {
	b := newBench(t)
	heard, witnessed := make(chan netip.Addr, 10), make(chan netip.Addr, 10)
	witness := newWire(func(_ int, a netip.Addr, _ net.HardwareAddr) { witnessed <- a })
	w := newWire(func(_ int, a netip.Addr, _ net.HardwareAddr) { heard <- a })
	t.Cleanup(func() { w.Close(); witness.Close() })
	b.inside(b.director, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		links := []link{{Name: eth0.Name, Index: eth0.Index, MAC: eth0.HardwareAddr}}
		// The kernel serves the last to come first.
		return errors.Join(witness.Hear(true), witness.Listen(links), w.Listen(links))
	})
	for _, on := range []bool{false, true, false, true} {
		if err := w.Hear(on); err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses(vip4, vip6) {
			frame, to := announcement(a.Addr(), net.HardwareAddr{2, 0, 0, 0, 0, 99}, false)
			b.put(frame, to)
			for _, by := range []chan netip.Addr{witnessed, heard} {
				if by == heard && !on {
					continue
				}
				select {
				case got := <-by:
					if got != a.Addr() {
						t.Errorf("heard of %s, want %s", got, a)
					}
				case <-time.After(patience):
					t.Fatalf("%s is not heard of", a)
				}
			}
		}
	}
	select {
	case a := <-heard:
		t.Errorf("heard of %s more often than it mattered", a)
	default:
	}
}

// TestKernelNeighbours has the client's own kernel believe an announcement.
func TestKernelNeighbours(t *testing.T) {
	b := newBench(t)
	all := addresses(vip4, vip6)
	for _, a := range all {
		b.in(b.client, "ip neigh replace "+a.Addr().String()+" lladdr 02:00:00:00:00:99 dev eth0 nud stale")
	}
	b.keep(Config{Fence: true})
	b.standby(all...)
	b.own(time.Minute, all...)
	for _, a := range all {
		b.await("neighbour "+a.String(), func() error {
			if out := b.in(b.client, "ip neigh show "+a.Addr().String()); !strings.Contains(out, b.mac.String()) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
	}
}
