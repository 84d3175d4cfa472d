package e2e_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A probe asks every director at once, by its MAC address so that ARP hides nothing,
// whether it accepts packets for a VIP: it sends each an echo request and notes who
// answers.
type probe struct {
	t    testing.TB
	fd   int
	vip  netip.Addr
	from netip.Addr
	mac  net.HardwareAddr
	to   map[string]net.HardwareAddr // by director

	every time.Duration // between two requests
	lag   time.Duration // an answer may take so long
	stop  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex
	sent    map[uint32]time.Time // by director's number and sequence
	names   []string
	accepts []acceptance // in the order of the answers
}

// An acceptance is one echo request that a director has taken, at some time between the
// two: on a busy kernel a request waits in a queue for as long as the role takes to move.
type acceptance struct {
	director       string
	sent, answered time.Time
}

// prompt reports whether the request was taken in the moment in which it was sent.
func (a acceptance) prompt() bool { return a.answered.Sub(a.sent) < probeInterval/2 }

const probeInterval = 4 * time.Millisecond

// newProbe starts to ask the lab's directors from a host of its own.
func (l *lab) newProbe(vip string) *probe {
	l.t.Helper()
	return l.newProbeAt(vip, "eth0")
}

// newProbeAt asks them at an interface.
func (l *lab) newProbeAt(vip, device string) *probe {
	l.t.Helper()
	return l.newProbeFrom(1, vip, device)
}

// newProbeFrom asks them from a host with a number. Probes of one time need different
// ones.
func (l *lab) newProbeFrom(number int, vip, device string) *probe {
	l.t.Helper()
	return l.newProbeEvery(probeInterval, number, vip, device)
}

// newProbeEvery asks them as seldom as it is told.
func (l *lab) newProbeEvery(every time.Duration, number int, vip, device string) *probe {
	l.t.Helper()
	address := fmt.Sprintf("10.9.0.%d", 49+number)
	ns := fmt.Sprintf("%sc%d", l.prefix, number)
	if _, err := os.Stat("/run/netns/" + ns); err != nil { // a former probe's
		l.host(ns, address)
	}
	p := &probe{
		t: l.t, vip: netip.MustParseAddr(vip), from: netip.MustParseAddr(address), mac: l.macOf(ns, "eth0"),
		to: map[string]net.HardwareAddr{}, every: every, stop: make(chan struct{}), sent: map[uint32]time.Time{},
	}
	for _, n := range l.nodes {
		if !strings.HasPrefix(n.name, "w") {
			p.names = append(p.names, n.name)
			p.to[n.name] = l.macOf(n.ns, device)
		}
	}
	err := inNamespace(ns, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		protocol := uint16(unix.ETH_P_IP)
		if p.vip.Is6() {
			protocol = unix.ETH_P_IPV6
		}
		all := protocol>>8 | protocol<<8 // network order
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all)); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: eth0.Index})
	})
	if err == nil {
		err = unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	}
	if err != nil {
		l.t.Fatalf("probe: %v", err)
	}
	if p.vip.Is6() {
		p.from = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 49+number))
		l.run("ip", "-n", ns, "addr", "replace", p.from.String()+"/64", "dev", "eth0", "nodad")
	}
	p.done.Go(p.send)
	p.done.Go(p.receive)
	l.t.Cleanup(p.close)
	return p
}

// hurry gives probes, for measurements, more of the processors than anybody
// else in the lab has: where one waited and did not ask, it looks like a gap. It lasts as
// long as this process, and what this process starts inherits it.
func hurry(t testing.TB) {
	t.Helper()
	for range 2 { // a thread that was begun meanwhile
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, -20); err != nil && !errors.Is(err, unix.ESRCH) {
				t.Fatal(err)
			}
		}
	}
}

func (p *probe) close() {
	select {
	case <-p.stop:
		return
	default:
	}
	close(p.stop)
	p.done.Wait()
	_ = unix.Close(p.fd)
}

func (l *lab) macOf(ns, device string) net.HardwareAddr {
	l.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns, "cat", "/sys/class/net/"+device+"/address").Output()
	if err != nil {
		l.t.Fatal(err)
	}
	mac, err := net.ParseMAC(strings.TrimSpace(string(out)))
	if err != nil {
		l.t.Fatal(err)
	}
	return mac
}

func (p *probe) send() {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for seq := uint16(0); ; seq++ {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		for i, name := range p.names {
			p.mu.Lock()
			p.sent[uint32(i)<<16|uint32(seq)] = time.Now()
			p.mu.Unlock()
			_, _ = unix.Write(p.fd, p.frame(p.to[name], uint16(i), seq)) // a full queue loses one
		}
	}
}

// frame is an echo request in IP in Ethernet.
func (p *probe) frame(to net.HardwareAddr, id, seq uint16) []byte {
	if p.vip.Is6() {
		return p.frame6(to, id, seq)
	}
	icmp := []byte{8, 0, 0, 0, byte(id >> 8), byte(id), byte(seq >> 8), byte(seq)}
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	from, vip := p.from.As4(), p.vip.As4()
	ip := []byte{0x45, 0, 0, byte(20 + len(icmp)), 0, 0, 0, 0, 64, unix.IPPROTO_ICMP, 0, 0}
	ip = append(append(ip, from[:]...), vip[:]...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	frame := append(append([]byte{}, to...), p.mac...)
	return append(append(append(frame, 8, 0), ip...), icmp...)
}

// checksum is that of RFC 1071, over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (p *probe) receive() {
	frame := make([]byte, 2048)
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		n, err := unix.Read(p.fd, frame)
		if err != nil || n < 14+20+8 {
			continue // nothing for a while
		}
		icmp := p.reply(frame[14:n])
		if icmp == nil {
			continue
		}
		id, seq := binary.BigEndian.Uint16(icmp[4:]), binary.BigEndian.Uint16(icmp[6:])
		if int(id) >= len(p.names) {
			continue
		}
		p.mu.Lock()
		if sent, ok := p.sent[uint32(id)<<16|uint32(seq)]; ok {
			p.accepts = append(p.accepts, acceptance{p.names[id], sent, time.Now()})
		}
		p.mu.Unlock()
	}
}

// reply returns what is in a packet when it is an answer from the VIP, or nil.
func (p *probe) reply(ip []byte) []byte {
	if p.vip.Is6() {
		return p.reply6(ip)
	}
	if icmp := ip[20:]; ip[9] == unix.IPPROTO_ICMP && icmp[0] == 0 && netip.AddrFrom4([4]byte(ip[12:16])) == p.vip {
		return icmp
	}
	return nil
}

const (
	echoRequest6 = 128
	echoReply6   = 129
)

// frame6 is an ICMPv6 echo request in IPv6 in Ethernet.
func (p *probe) frame6(to net.HardwareAddr, id, seq uint16) []byte {
	icmp := []byte{echoRequest6, 0, 0, 0, byte(id >> 8), byte(id), byte(seq >> 8), byte(seq)}
	pseudo := append(p.from.AsSlice(), p.vip.AsSlice()...)
	pseudo = append(pseudo, 0, 0, 0, byte(len(icmp)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(append(pseudo, icmp...)))
	frame := append(append(append([]byte{}, to...), p.mac...), 0x86, 0xdd)
	frame = append(frame, 0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 64)
	return append(append(append(frame, p.from.AsSlice()...), p.vip.AsSlice()...), icmp...)
}

func (p *probe) reply6(ip []byte) []byte {
	if len(ip) < 40+8 || ip[6] != unix.IPPROTO_ICMPV6 || ip[40] != echoReply6 || netip.AddrFrom16([16]byte(ip[8:24])) != p.vip {
		return nil
	}
	return ip[40:]
}

// owner returns who accepted a request of the last moments, "" nobody.
func (p *probe) owner() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.accepts) == 0 {
		return ""
	}
	if last := p.accepts[len(p.accepts)-1]; time.Since(last.sent) < 20*p.every+p.lag {
		return last.director
	}
	return ""
}

// last returns when the last request was sent that a director has taken.
func (p *probe) last(director string) (sent time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.accepts {
		if a.director == director && a.sent.After(sent) {
			sent = a.sent
		}
	}
	return sent
}

// forget drops what it has seen so far.
func (p *probe) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepts = nil
}

// awaitOwner waits for an owner other than former, until it has stayed that for stay.
func (p *probe) awaitOwner(l *lab, former string) (owner string) {
	p.t.Helper()
	l.await("owner of the VIP that is not "+former, func() error {
		if owner = p.owner(); owner == "" || owner == former || p.stayed() < stay {
			return fmt.Errorf("owner %q", owner)
		}
		return nil
	})
	return owner
}

// stay is how long a role stays with one director: who takes a request before and after
// others within less has not owned the VIP twice, but all the time.
const stay = 150 * time.Millisecond

// stayed returns for how long requests were taken by the director that has taken the
// last one alone.
func (p *probe) stayed() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := len(p.accepts) - 1
	for i > 0 && p.accepts[i-1].director == p.accepts[i].director {
		i--
	}
	if i < 0 {
		return 0
	}
	return p.accepts[len(p.accepts)-1].sent.Sub(p.accepts[i].sent)
}

// moves returns what movesOf does of all that was accepted.
func (p *probe) moves() (gaps []time.Duration, overlap int) {
	p.mu.Lock()
	accepts := slices.Clone(p.accepts)
	p.mu.Unlock()
	return movesOf(accepts)
}

// movesOf returns, for each change of the owner, how long nobody accepted, and how many
// requests were taken while another director took them too: one of the other's was sent
// and answered between two of them, or at the same moment as one.
func movesOf(accepts []acceptance) (gaps []time.Duration, overlap int) {
	slices.SortStableFunc(accepts, func(a, b acceptance) int { return a.sent.Compare(b.sent) })
	for i, a := range accepts {
		if i > 0 && accepts[i-1].director != a.director {
			gaps = append(gaps, a.sent.Sub(accepts[i-1].sent))
		}
		var other time.Time // when somebody else first answered one that was sent after a was
		for _, b := range accepts[i+1:] {
			if b.sent.Sub(a.sent) > stay {
				break
			}
			switch {
			case b.director != a.director && b.sent.Sub(a.sent) < probeInterval/2 && a.prompt() && b.prompt():
				overlap++
			case b.director != a.director:
				if b.sent.After(a.answered) && (other.IsZero() || b.answered.Before(other)) {
					other = b.answered
				}
			case !other.IsZero() && other.Before(b.sent):
				overlap++
			}
		}
	}
	return gaps, overlap
}
