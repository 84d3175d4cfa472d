package vip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

// patience is how long a test waits for what must come. The kernel may be an
// emulated one, many times slower than a real machine.
const patience = 20 * time.Second

// port is where the director takes datagrams.
const port = 7777

// bench is a director and a client on a wire, each in a network namespace of its
// own, and a keeper on the director.
type bench struct {
	t        *testing.T
	director string
	client   string
	mac      net.HardwareAddr // of the director
	probe    *packet.Conn     // the client's end of the wire
	socket   *net.UDPConn     // of the director, for any address
	dir      string
	k        *Keeper
	stop     func()
}

var benches int

// newBench makes hosts 10.9.0.11 and 2001:db8::11, the director, and 10.9.0.200 and
// 2001:db8::200.
func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Getenv("IPVS_HA_REAL_KERNEL") == "" {
		t.Skip("needs a real kernel: IPVS_HA_REAL_KERNEL is not set")
	}
	benches++
	b := &bench{t: t, director: fmt.Sprintf("d%d", benches), client: fmt.Sprintf("c%d", benches), dir: t.TempDir()}
	for _, ns := range []string{b.director, b.client} {
		b.run("ip", "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		b.in(ns, "ip link set lo up")
	}
	b.run("ip", "link", "add", "eth0", "netns", b.director, "type", "veth", "peer", "name", "eth0", "netns", b.client)
	for ns, last := range map[string]string{b.director: "11", b.client: "200"} {
		b.in(ns, "ip link set eth0 up; ip addr add 10.9.0."+last+"/24 dev eth0; ip addr add 2001:db8::"+last+"/64 dev eth0 nodad")
	}
	b.mac = b.macOf(b.director)
	here := b.macOf(b.client)
	b.inside(b.client, func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		i.HardwareAddr = here
		b.probe, err = packet.Listen(i, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	t.Cleanup(func() { _ = b.probe.Close() })
	b.inside(b.director, func() (err error) {
		b.socket, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	})
	t.Cleanup(func() { _ = b.socket.Close() })
	b.stop = func() {}
	return b
}

// keep starts a keeper; the test ends it.
func (b *bench) keep(c Config) *Keeper {
	b.t.Helper()
	c.DataDir = b.dir
	k, err := New(c)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		// The thread stays locked, so that it ends with this goroutine.
		runtime.LockOSThread()
		ns, err := netns.GetFromName(b.director)
		if err == nil {
			err = netns.Set(ns)
			_ = ns.Close()
		}
		if err == nil {
			err = k.Run(ctx)
		}
		done <- err
	}()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("the keeper ended: %v", err)
		}
	})
	b.t.Cleanup(b.stop)
	b.k = k
	return k
}

// standby makes the director a standby for all, and waits until it could own them.
func (b *bench) standby(all ...Address) {
	b.t.Helper()
	b.k.Set(all, 0)
	b.status("standby", func(s Status) bool { return s.Fence == FenceShut && s.ErrorCount == 0 && s.HeldCount == 0 })
}

// own makes the director the owner for d and waits until it is.
func (b *bench) own(d time.Duration, all ...Address) {
	b.t.Helper()
	b.k.Set(all, boottime.Now()+d)
	b.status("owner", func(s Status) bool { return s.Owner && s.HeldCount == len(all) })
}

// status waits until the keeper's status is as wanted.
func (b *bench) status(what string, want func(Status) bool) {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		changed := b.k.Changed()
		s := b.k.Status()
		if want(s) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			b.t.Fatalf("%s: %+v", what, s)
		}
	}
}

// await asks again until check returns nil.
func (b *bench) await(what string, check func() error) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *bench) run(name string, args ...string) string {
	b.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// in runs a shell command in a namespace.
func (b *bench) in(ns, command string) string {
	b.t.Helper()
	return b.run("ip", "netns", "exec", ns, "sh", "-ec", command)
}

// inside calls do on a thread that is in a namespace.
func (b *bench) inside(ns string, do func() error) {
	b.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		there, err := netns.GetFromName(ns)
		if err == nil {
			err = netns.Set(there)
			_ = there.Close()
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		b.t.Fatal(err)
	}
}

// network calls do with the director's interfaces and addresses, and a look at them.
func (b *bench) network(do func(n *rtnetlink, h host) error) {
	b.t.Helper()
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
		return do(n, h)
	})
}

// hints returns what a socket of the director says of changes.
func (b *bench) hints(open func() (events, error)) <-chan struct{} {
	b.t.Helper()
	var e events
	b.inside(b.director, func() (err error) {
		e, err = open()
		return err
	})
	heard := make(chan struct{}, 1000)
	done := make(chan struct{})
	go func() { defer close(done); e.run(b.t.Context(), func() { heard <- struct{}{} }) }()
	b.t.Cleanup(func() { e.close(); <-done })
	return heard
}

func (b *bench) macOf(ns string) net.HardwareAddr {
	b.t.Helper()
	fields := strings.Fields(b.in(ns, "ip -o link show eth0"))
	for i, f := range fields {
		if f == "link/ether" {
			mac, err := net.ParseMAC(fields[i+1])
			if err != nil {
				b.t.Fatal(err)
			}
			return mac
		}
	}
	b.t.Fatalf("no MAC address in %v", fields)
	return nil
}

// from is the address of the client in the family of to.
func (b *bench) from(to netip.Addr) netip.Addr {
	if to.Is4() {
		return netip.MustParseAddr("10.9.0.200")
	}
	return netip.MustParseAddr("2001:db8::200")
}

// send puts a datagram on the wire, right to the director's MAC address, so that ARP
// hides nothing.
func (b *bench) send(to netip.Addr, number uint16) {
	b.t.Helper()
	from, here := b.from(to), b.macOfProbe()
	udp := []byte{0x30, 0x39, port >> 8, port & 0xff, 0, 10, 0, 0, byte(number >> 8), byte(number)}
	var f []byte
	if to.Is4() { // without a checksum of the datagram
		f = ether(b.mac, here, unix.ETH_P_IP)
		header := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		header = append(append(header, from.AsSlice()...), to.AsSlice()...)
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		f = append(f, header...)
	} else {
		pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, 0, 0, byte(len(udp)), 0, 0, 0, unix.IPPROTO_UDP)
		binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
		f = ether(b.mac, here, unix.ETH_P_IPV6)
		f = append(f, 6<<4, 0, 0, 0, 0, byte(len(udp)), unix.IPPROTO_UDP, 64)
		f = append(append(f, from.AsSlice()...), to.AsSlice()...)
	}
	b.put(append(f, udp...), b.mac)
}

func (b *bench) put(frame []byte, to net.HardwareAddr) {
	b.t.Helper()
	if _, err := b.probe.WriteTo(frame, &packet.Addr{HardwareAddr: to}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) macOfProbe() net.HardwareAddr {
	return b.probe.LocalAddr().(*packet.Addr).HardwareAddr
}

// checksum returns the Internet checksum of an even number of bytes.
func checksum(data []byte) uint16 {
	var sum uint32
	for ; len(data) > 1; data = data[2:] {
		sum += uint32(binary.BigEndian.Uint16(data))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// hear reads frames of the director until match returns true for one, or for d.
func (b *bench) hear(d time.Duration, match func(frame []byte) bool) bool {
	b.t.Helper()
	buffer := make([]byte, 2048)
	deadline := time.Now().Add(d)
	for {
		if err := b.probe.SetReadDeadline(deadline); err != nil {
			b.t.Fatal(err)
		}
		n, _, err := b.probe.ReadFrom(buffer)
		if err != nil {
			return false
		}
		if f := buffer[:n]; n >= etherSize && bytes.Equal(f[6:12], b.mac) && match(f) {
			return true
		}
	}
}

var probes uint16

// accepts reports whether a packet to a reaches a socket on the director. What the
// director says in return does not count: the fence holds that back by other rules.
func (b *bench) accepts(a netip.Addr) bool {
	b.t.Helper()
	return b.acceptsWithin(a, 500*time.Millisecond)
}

func (b *bench) acceptsWithin(a netip.Addr, d time.Duration) bool {
	b.t.Helper()
	probes++
	b.send(a, probes)
	if err := b.socket.SetReadDeadline(time.Now().Add(d)); err != nil {
		b.t.Fatal(err)
	}
	buffer := make([]byte, 64)
	for {
		n, err := b.socket.Read(buffer)
		if err != nil {
			return false
		}
		if n == 2 && binary.BigEndian.Uint16(buffer) == probes {
			return true
		}
	}
}

// awaitAccepted sends until the director accepts a packet to a.
func (b *bench) awaitAccepted(a netip.Addr) {
	b.t.Helper()
	b.await("packet to "+a.String(), func() error {
		if !b.accepts(a) {
			return errors.New("it is not accepted")
		}
		return nil
	})
}

// awaitResolved asks until the director says where a is.
func (b *bench) awaitResolved(a netip.Addr) {
	b.t.Helper()
	b.await("who has "+a.String(), func() error {
		if !b.resolves(a) {
			return errors.New("no answer")
		}
		return nil
	})
}

// resolves reports whether the director answers who has a.
func (b *bench) resolves(a netip.Addr) bool {
	b.t.Helper()
	here, from := b.macOfProbe(), b.from(a)
	if a.Is4() {
		f := ether(broadcast, here, unix.ETH_P_ARP)
		f = append(append(append(f, 0, 1, 8, 0, 6, 4, 0, 1), here...), from.AsSlice()...)
		b.put(append(append(f, make([]byte, 6)...), a.AsSlice()...), broadcast)
	} else {
		raw := a.As16()
		group := netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: raw[13], 14: raw[14], 15: raw[15]})
		to := net.HardwareAddr{0x33, 0x33, 0xff, raw[13], raw[14], raw[15]}
		icmp := append(append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, a.AsSlice()...), append([]byte{1, 1}, here...)...)
		binary.BigEndian.PutUint16(icmp[2:], checksum6(from, group, icmp))
		f := ether(to, here, unix.ETH_P_IPV6)
		f = append(f, 6<<4, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, hopLimit)
		b.put(append(append(append(f, from.AsSlice()...), group.AsSlice()...), icmp...), to)
	}
	return b.hear(500*time.Millisecond, func(f []byte) bool {
		who, _, ok := spokenFor(f)
		toUs := bytes.Equal(f[:6], here) // announcements go to all
		return ok && who == a && toUs
	})
}

// processed returns how many packets IPVS on the director has seen: the sum of the
// CPUs, because the kernel brings its total up to date only every 2 s.
func (b *bench) processed() uint64 {
	b.t.Helper()
	var sum uint64
	for line := range strings.Lines(b.in(b.director, "cat /proc/net/ip_vs_stats_percpu")) {
		f := strings.Fields(line) // CPU, connections, packets and more, all hexadecimal
		if len(f) < 6 || f[0] == "~" {
			continue
		}
		if _, err := strconv.ParseUint(f[0], 16, 64); err != nil {
			continue // a headline
		}
		n, err := strconv.ParseUint(f[2], 16, 64)
		if err != nil {
			b.t.Fatal(err)
		}
		sum += n
	}
	return sum
}
