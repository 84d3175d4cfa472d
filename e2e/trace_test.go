package e2e_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// TestTraceOfAMove reads on the wire in which order a role moves. Only what does not
// depend on how long a frame waits in a queue is an order: a request was taken after it
// was sent and before it was answered.
func TestTraceOfAMove(t *testing.T) {
	l := ownerLab(t, slowly) // a lease that a busy machine keeps: the role moves when it is told to
	l.realServer("r1", "10.9.0.21", "10.9.0.100")
	client := l.prefix + "c3"
	l.host(client, "10.9.0.52")
	tr := l.newTrace(netip.MustParseAddr("10.9.0.100"), netip.MustParseAddr("2001:db8::100"))
	l.newcomers(client, 20*time.Millisecond, netip.MustParseAddrPort("10.9.0.100:80"))
	for _, move := range []struct {
		name   string
		strike func(*node)
	}{
		{"transfer", func(n *node) { n.mustHA("transfer") }},
		{"SIGTERM", func(n *node) { n.kill(syscall.SIGTERM) }},
		{"kill -9", func(n *node) { n.kill(syscall.SIGKILL) }},
	} {
		former := l.settle()
		tr.forget()
		l.await("traffic through "+former.name, func() error { return tr.serves(former.name) })
		move.strike(former)
		next := l.probe.awaitOwner(l, former.name)
		l.await(move.name+": trace of a whole move to "+next, func() error { return tr.whole(former.name, next) })
		tr.tell(move.name, former.name, next)
		l.comeBack(former)
	}
	if stats, err := tr.tap.Stats(); err != nil || stats.Drops > 0 {
		t.Errorf("the trace has gaps: %+v, %v", stats, err)
	}
}

// A trace is what passes a lab's bridge about VIPs and connections, each frame with the
// time at which the kernel took it from its sender.
type trace struct {
	t         testing.TB
	tap, out  *packet.Conn      // a socket does not see what it sends itself
	directors map[string]string // by MAC address

	mu     sync.Mutex
	vips   map[netip.Addr]*talk
	told   map[string]time.Time // when a director's master daemon last told of connections
	resets map[string]time.Time // when a director last passed on the end of one
}

// A talk is all about one VIP since the last forget.
type talk struct {
	asked     []question
	taken     []acceptance
	spoken    map[string]time.Time   // when a director first said anything for the VIP
	announced map[string][]time.Time // when it did that unasked
}

// A question is an echo request to one director, or an ARP request to all.
type question struct {
	to   string // "" = all
	key  string // what the answer repeats
	sent time.Time
}

// newTrace begins one, and asks all directors for IPv4 VIPs by ARP. The probes ask for
// echoes.
func (l *lab) newTrace(vips ...netip.Addr) *trace {
	l.t.Helper()
	tr := &trace{t: l.t, directors: map[string]string{}, vips: map[netip.Addr]*talk{}}
	for _, n := range l.nodes {
		tr.directors[string(l.macOf(n.ns, "eth0"))] = n.name
	}
	for _, vip := range vips {
		tr.vips[vip] = nil
	}
	tr.forget()
	must := func(err error) {
		l.t.Helper()
		if err != nil {
			l.t.Fatalf("trace: %v", err)
		}
	}
	bridge, err := net.InterfaceByName(l.bridge)
	must(err)
	tr.tap, err = packet.Listen(bridge, packet.Raw, unix.ETH_P_ALL, nil)
	must(err)
	tr.out, err = packet.Listen(bridge, packet.Raw, 0, nil)
	must(err)
	must(tr.tap.SetPromiscuous(true)) // else a bridge does not see what goes from one port to another
	raw, err := tr.tap.SyscallConn()
	must(err)
	must(raw.Control(func(fd uintptr) {
		must(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
		must(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
	}))
	var done sync.WaitGroup
	done.Go(func() { tr.read(raw) })
	for _, vip := range vips {
		if vip.Is4() {
			done.Go(func() { tr.ask(vip) })
		}
	}
	l.t.Cleanup(func() {
		_, _ = tr.tap.Close(), tr.out.Close()
		done.Wait()
	})
	return tr
}

// forget drops what it has seen so far.
func (tr *trace) forget() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.told, tr.resets = map[string]time.Time{}, map[string]time.Time{}
	for vip := range tr.vips {
		tr.vips[vip] = &talk{spoken: map[string]time.Time{}, announced: map[string][]time.Time{}}
	}
}

// ask asks who has the VIP, each time from another MAC address, which the answer goes to.
// Nobody learns one from a request that names no IP address as its sender's.
func (tr *trace) ask(vip netip.Addr) {
	tick := time.NewTicker(2 * probeInterval)
	defer tick.Stop()
	to := &packet.Addr{HardwareAddr: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for i := uint32(0); ; i++ {
		select {
		case <-tr.t.Context().Done():
			return
		case <-tick.C:
		}
		from := binary.BigEndian.AppendUint32([]byte{2, 0xa0}, i)
		frame := append(append([]byte{}, to.HardwareAddr...), from...)
		frame = append(append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1), from...)
		frame = append(append(frame, make([]byte, 4+6)...), vip.AsSlice()...)
		_, _ = tr.out.WriteTo(frame, to) // a full queue loses one
	}
}

func (tr *trace) read(raw syscall.RawConn) {
	var frame [128]byte // what follows in a longer one does not matter
	control := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{}))))
	for {
		var size int
		var err error
		closed := raw.Read(func(fd uintptr) bool {
			_, size, _, _, err = unix.Recvmsg(int(fd), frame[:], control, 0)
			return !errors.Is(err, unix.EAGAIN)
		})
		if closed != nil {
			return
		}
		stamps, _ := unix.ParseSocketControlMessage(control[:size])
		if err != nil || len(stamps) != 1 {
			tr.t.Errorf("trace: a frame with %d times: %v", len(stamps), err)
			return
		}
		at := (*unix.Timespec)(unsafe.Pointer(&stamps[0].Data[0]))
		tr.mu.Lock()
		tr.note(frame[:], time.Unix(at.Unix()))
		tr.mu.Unlock()
	}
}

// note notes what a frame says.
func (tr *trace) note(frame []byte, at time.Time) {
	to, from, ip := tr.directors[string(frame[:6])], tr.directors[string(frame[6:12])], frame[14:]
	v4 := func(offset int) netip.Addr { return netip.AddrFrom4([4]byte(ip[offset:])) }
	v6 := func(offset int) netip.Addr { return netip.AddrFrom16([16]byte(ip[offset:])) }
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		if sender, target := v4(14), v4(24); sender.IsUnspecified() {
			tr.vips[target].ask("", ip[8:14], at)
		} else {
			tr.vips[sender].say(from, ip[18:24], sender == target, at)
		}
	case unix.ETH_P_IP:
		switch sender, target, body := v4(12), v4(16), ip[20:]; {
		case ip[9] == unix.IPPROTO_ICMP && body[0] == 8:
			tr.vips[target].ask(to, body[4:8], at)
		case ip[9] == unix.IPPROTO_ICMP && body[0] == 0:
			tr.vips[sender].say(from, body[4:8], false, at)
		case ip[9] == unix.IPPROTO_TCP && body[13]&4 != 0 && tr.vips[target] != nil:
			tr.resets[from] = at
		case ip[9] == unix.IPPROTO_UDP && target == netip.AddrFrom4([4]byte{224, 0, 0, 81}) && binary.BigEndian.Uint16(body[2:]) == 8848:
			tr.told[from] = at
		}
	case unix.ETH_P_IPV6:
		const advertisement = 136
		switch sender, target, body := v6(8), v6(24), ip[40:]; {
		case ip[6] == unix.IPPROTO_ICMPV6 && body[0] == echoRequest6:
			tr.vips[target].ask(to, body[4:8], at)
		case ip[6] == unix.IPPROTO_ICMPV6 && body[0] == echoReply6:
			tr.vips[sender].say(from, body[4:8], false, at)
		case ip[6] == unix.IPPROTO_ICMPV6 && body[0] == advertisement:
			tr.vips[v6(48)].say(from, nil, target.IsMulticast(), at)
		}
	}
}

func (k *talk) ask(to string, key []byte, at time.Time) {
	if k != nil {
		k.asked = append(k.asked, question{to, string(key), at})
	}
}

func (k *talk) say(from string, key []byte, unasked bool, at time.Time) {
	if k == nil || from == "" {
		return
	}
	if k.spoken[from].IsZero() {
		k.spoken[from] = at
	}
	if unasked {
		k.announced[from] = append(k.announced[from], at)
	}
	for _, q := range slices.Backward(k.asked) {
		if q.key == string(key) {
			k.taken = append(k.taken, acceptance{from, q.sent, at})
			return
		}
	}
}

// serves returns nil when the owner has answered for all VIPs and its master daemon has
// something to tell.
func (tr *trace) serves(owner string) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for vip, k := range tr.vips {
		if k.spoken[owner].IsZero() || tr.resets[owner].IsZero() {
			return fmt.Errorf("%s answered for %s at %v and passed a reset on at %v", owner, vip, k.spoken[owner], tr.resets[owner])
		}
	}
	return nil
}

// whole returns nil when all has been seen that must follow a move, and nothing that must
// not.
func (tr *trace) whole(former, next string) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for vip, k := range tr.vips {
		err := k.overlap(former, next)
		if err == nil {
			err = k.served(next)
		}
		if err == nil && !tr.told[next].After(k.announced[next][0]) {
			err = fmt.Errorf("%s has told of no connection", next)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", vip, err)
		}
	}
	if held := tr.resets[former]; !tr.told[former].After(held) {
		return fmt.Errorf("%s has not told of the last connection that it saw end, at %v", former, held)
	}
	return nil
}

// overlap returns an error unless all that the former owner did was before the next one
// said its first word.
func (k *talk) overlap(former, next string) error {
	spoke := k.spoken[next]
	if spoke.IsZero() {
		return fmt.Errorf("%s has not spoken", next)
	}
	for _, a := range k.taken {
		if late := a.sent.Sub(spoke); a.director == former && late > 0 {
			return fmt.Errorf("%s took a request that was sent %v after %s had first spoken", former, late, next)
		}
		if a.director != former && a.director != next {
			return fmt.Errorf("%s took a request that was %s's or %s's", a.director, former, next)
		}
	}
	for director, times := range k.announced {
		if late := times[len(times)-1].Sub(spoke); director != next && late > 0 {
			return fmt.Errorf("%s announced it %v after %s had first spoken", director, late, next)
		}
	}
	return nil
}

// served returns an error unless an owner has announced the VIP, and again, and has taken
// the first request of each kind since: who hears the announcement comes at once.
func (k *talk) served(owner string) error {
	times := k.announced[owner]
	if len(times) < 5 {
		return fmt.Errorf("%s has announced it %d times", owner, len(times))
	}
	asked := map[string]bool{}
	for _, q := range k.asked {
		if q.sent.Before(times[0]) || q.to != "" && q.to != owner || asked[q.to] {
			continue
		}
		if asked[q.to] = true; !slices.ContainsFunc(k.taken, func(a acceptance) bool { return a.director == owner && a.sent.Equal(q.sent) }) {
			return fmt.Errorf("%s has not taken a request that was sent %v after its first announcement", owner, q.sent.Sub(times[0]))
		}
	}
	if !asked[owner] {
		return fmt.Errorf("%s was not asked after its first announcement", owner)
	}
	return nil
}

// tell logs when all that was.
func (tr *trace) tell(move, former, next string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for vip, k := range tr.vips {
		var last acceptance
		for _, a := range k.taken {
			if a.director == former {
				last = a
			}
		}
		announced := k.announced[next][0]
		tr.t.Logf("%s of %s: the last request that %s took was sent %v before %s announced it, and answered %v before; %s first spoke %v before",
			move, vip, former, announced.Sub(last.sent), next, announced.Sub(last.answered), next, announced.Sub(k.spoken[next]))
	}
}
