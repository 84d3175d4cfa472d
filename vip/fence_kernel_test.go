package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

var both = []string{vip4, vip6}

func TestKernelOwnerOnly(t *testing.T) {
	for _, text := range both {
		t.Run(text, func(t *testing.T) {
			b := newBench(t)
			v := address(text)
			b.keep(Config{Fence: true})
			b.standby(v)
			// The mistake that the fence is for: the address is there all the same.
			b.in(b.director, "ip addr add "+v.Prefix.String()+" dev eth0 $(test "+fmt.Sprint(v.Addr().Is4())+" = true || echo nodad)")
			if b.accepts(v.Addr()) {
				t.Error("a standby accepts a packet")
			}
			if b.resolves(v.Addr()) {
				t.Error("a standby says where the VIP is")
			}
			b.awaitAccepted(b.own11(v)) // or the test would see nothing
			b.awaitResolved(b.own11(v))
			b.in(b.director, "ip addr del "+v.Prefix.String()+" dev eth0")
			b.status("the address is free", func(s Status) bool { return s.ErrorCount == 0 })
			b.own(time.Minute, v)
			b.awaitAccepted(v.Addr())
			b.awaitResolved(v.Addr())
			b.k.Set([]Address{v}, 0)
			b.status("standby", func(s Status) bool { return s.Fence == FenceShut && s.HeldCount == 0 })
			if b.accepts(v.Addr()) {
				t.Error("a director accepts a packet after it stopped being the owner")
			}
		})
	}
}

// own11 is the director's own address of v's family.
func (b *bench) own11(v Address) netip.Addr {
	if v.Addr().Is4() {
		return netip.MustParseAddr("10.9.0.11")
	}
	return netip.MustParseAddr("2001:db8::11")
}

// TestKernelEndsOnTime looks for the last packet that is accepted, with a keeper that
// hears nothing more and with none: what one does that is stopped or killed.
func TestKernelEndsOnTime(t *testing.T) {
	const permitted = 400 * time.Millisecond
	for _, text := range both {
		v := address(text)
		t.Run("keeper "+text, func(t *testing.T) {
			b := newBench(t)
			b.keep(Config{Fence: true})
			b.standby(v)
			b.own(time.Minute, v)
			until := boottime.Now() + permitted
			b.k.Set([]Address{v}, until)
			b.passesUntil(v, until)
			b.status("standby", func(s Status) bool { return !s.Owner && s.HeldCount == 0 })
		})
		t.Run("no keeper "+text, func(t *testing.T) {
			b := newBench(t)
			b.keep(Config{Fence: true})
			b.standby(v)
			b.stop() // it leaves the fence, shut
			b.in(b.director, fmt.Sprintf("ip addr add %s dev eth0 valid_lft 60 preferred_lft 60 $(test %v = true || echo nodad)", v.Prefix, v.Addr().Is4()))
			var until time.Duration
			b.inside(b.director, func() error {
				err := (&nft{}).Permit(permitted)
				until = boottime.Now() + permitted // no earlier than the kernel's end
				return err
			})
			b.passesUntil(v, until)
		})
	}
}

// passesUntil sends packets until long after a time and wants the last that is
// accepted to be one from before it.
func (b *bench) passesUntil(v Address, until time.Duration) {
	b.t.Helper()
	const kernelTick = 10 * time.Millisecond
	var first, last time.Duration // when what was accepted was sent
	for boottime.Now() < until+600*time.Millisecond {
		at := boottime.Now()
		if b.acceptsWithin(v.Addr(), 50*time.Millisecond) {
			last = at
			if first == 0 {
				first = at
			}
		}
	}
	if first == 0 || last > until+kernelTick+maxLate {
		b.t.Errorf("accepted: from %v to %v before the end", until-first, until-last)
	}
	b.t.Logf("the last packet that was accepted was sent %v before the end", until-last)
}

// TestKernelAdvertisementFromAnotherAddress: the kernel advertises a VIP from the
// VIP, but a proxy does not.
func TestKernelAdvertisementFromAnotherAddress(t *testing.T) {
	b := newBench(t)
	v := address(vip6)
	b.keep(Config{Fence: true})
	b.standby(v)
	advertised := func(target netip.Addr) bool {
		b.inside(b.director, func() error {
			conn, err := net.ListenPacket("ip6:ipv6-icmp", "2001:db8::11")
			if err != nil {
				return err
			}
			defer conn.Close()
			raw, err := conn.(*net.IPConn).SyscallConn()
			if err != nil {
				return err
			}
			if ctl := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hopLimit)
			}); ctl != nil {
				return ctl
			}
			if err == nil {
				message := append([]byte{neighbourAdvertisement, 0, 0, 0, 0x20, 0, 0, 0}, target.AsSlice()...)
				_, _ = conn.WriteTo(message, &net.IPAddr{IP: allNodes.AsSlice(), Zone: "eth0"}) // EPERM when it is dropped
			}
			return err
		})
		return b.hear(500*time.Millisecond, func(f []byte) bool {
			who, _, ok := spokenFor(f)
			return ok && who == target
		})
	}
	if advertised(v.Addr()) {
		t.Error("a standby advertises the VIP")
	}
	if !advertised(netip.MustParseAddr("2001:db8::55")) {
		t.Error("another address is not advertised: the test sees nothing")
	}
}

// TestKernelRenewalLosesNothing renews under traffic.
func TestKernelRenewalLosesNothing(t *testing.T) {
	b := newBench(t)
	v := address(vip4)
	b.keep(Config{Fence: true})
	b.standby(v)
	b.own(3*time.Second, v)
	lost := 0
	for range 300 {
		b.k.Set([]Address{v}, boottime.Now()+3*time.Second)
		if !b.accepts(v.Addr()) {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of 300 packets lost", lost)
	}
}

// TestKernelBeforeIPVS counts what reaches IPVS itself.
func TestKernelBeforeIPVS(t *testing.T) {
	b := newBench(t)
	v := address(vip4)
	b.in(b.director, "ipvsadm -A -u 10.9.0.100:7788; ipvsadm -a -u 10.9.0.100:7788 -r 10.9.0.200:7788 -g")
	b.keep(Config{Fence: true})
	b.standby(v)
	b.in(b.director, "ip addr add 10.9.0.100/32 dev eth0")
	b.in(b.client, "ip neigh replace 10.9.0.100 lladdr "+b.mac.String()+" dev eth0 nud permanent")
	udp := func() {
		b.inside(b.client, func() error {
			conn, err := net.Dial("udp", "10.9.0.100:7788")
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("x"))
			return err
		})
	}
	for range 10 {
		udp()
	}
	b.awaitAccepted(b.own11(v)) // which comes behind those
	if n := b.processed(); n != 0 {
		t.Errorf("IPVS saw %d packets on a standby", n)
	}
	b.in(b.director, "ip addr del 10.9.0.100/32 dev eth0")
	b.own(time.Minute, v)
	b.await("packets at IPVS on the owner", func() error {
		udp()
		if b.processed() == 0 {
			return errors.New("none")
		}
		return nil
	})
}

func TestKernelFlushedRuleset(t *testing.T) {
	for _, command := range []string{
		"nft flush ruleset",
		"nft flush chain inet ipvs-ha input",
		"nft flush chain arp ipvs-ha output",
		"nft flush set inet ipvs-ha vips4",
	} {
		t.Run(command, func(t *testing.T) {
			b := newBench(t)
			v := address(vip4)
			b.keep(Config{Fence: true})
			b.standby(v)
			b.own(time.Minute, v)
			b.in(b.director, "nft add table ip other; nft add chain ip other c") // a change that is none of our business
			b.in(b.director, command)
			b.status("rebuilt", func(s Status) bool { return s.FenceRebuilt == 1 && s.Fence == FenceOpen && s.Owner })
			rules := b.in(b.director, "nft list ruleset")
			if strings.Count(rules, "drop") != 6 || !strings.Contains(rules, "10.9.0.100") {
				t.Errorf("rebuilt:\n%s", rules)
			}
			b.awaitAccepted(v.Addr())
			b.k.Set([]Address{v}, 0)
			b.status("standby", func(s Status) bool { return s.Fence == FenceShut && s.HeldCount == 0 })
			b.in(b.director, "ip addr add 10.9.0.100/32 dev eth0")
			if b.accepts(v.Addr()) {
				t.Error("a standby accepts a packet")
			}
			if n := b.k.Status().FenceRebuilt; n != 1 {
				t.Errorf("rebuilt %d times, want once", n)
			}
		})
	}
}

// TestKernelFlushAfterAShut: to shut what is shut changes nothing, which the kernel
// does not count, and somebody's next change must not be taken for it.
func TestKernelFlushAfterAShut(t *testing.T) {
	b := newBench(t)
	b.inside(b.director, func() error {
		var f nft
		defer f.Close()
		for _, do := range []func() error{func() error { return f.Build([]netip.Addr{netip.MustParseAddr("10.9.0.100")}) }, f.Check, f.Shut} {
			if err := do(); err != nil {
				return err
			}
		}
		b.in(b.director, "nft flush ruleset")
		if err := f.Check(); !isGone(err) {
			t.Errorf("check: %v", err)
		}
		return nil
	})
}

// TestKernelFenceOff shows that the probe sees what the fence prevents.
func TestKernelFenceOff(t *testing.T) {
	b := newBench(t)
	v := address(vip4)
	b.keep(Config{Fence: true})
	b.standby(v)
	b.stop()
	b.keep(Config{})
	b.k.Set([]Address{v}, 0)
	b.status("fence off", func(s Status) bool { return s.Fence == FenceOff && s.ErrorCount == 0 })
	b.in(b.director, "ip addr add 10.9.0.100/32 dev eth0")
	b.awaitAccepted(v.Addr())
	b.awaitResolved(v.Addr())
}

// unprivileged calls do on a thread of the director's that may change nothing.
func (b *bench) unprivileged(do func() error) {
	b.t.Helper()
	b.inside(b.director, func() error {
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&head, &none[0]); err != nil { // of this thread
			return err
		}
		return do()
	})
}

// TestKernelFenceOffUnprivileged: that nobody could look is not that nothing is there.
func TestKernelFenceOffUnprivileged(t *testing.T) {
	b := shutBench(t)
	b.unprivileged(func() error {
		if err := (noFence{}).Build(nil); !errors.Is(err, unix.EPERM) {
			t.Errorf("build: %v", err)
		}
		return nil
	})
	b.inside(b.director, func() error { return noFence{}.Build(nil) })
	if out := b.in(b.director, "nft list tables"); strings.Contains(out, tableName) {
		t.Errorf("left: %s", out)
	}
	b.inside(b.director, func() error { return noFence{}.Build(nil) })
}
