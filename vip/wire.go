package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// sendTimeout bounds the wait for room in an interface's queue.
const sendTimeout = 10 * time.Millisecond

// heard is called with what somebody says on a link: that an address is at mac. It
// must not block.
type heard func(index int, a netip.Addr, mac net.HardwareAddr)

// announcer is what the keeper needs of the wire.
type announcer interface {
	// Listen listens on exactly these links. Where that came to an end it says so, and
	// listens anew when it is called next.
	Listen(links []link) error
	// Hear says whether what is said matters now. While it does not, no frame of a busy
	// network wakes this process.
	Hear(on bool) error
	// Announce says once that a is at the link, which is listened on.
	Announce(l link, a netip.Addr) error
	// Close stops listening and waits until it has.
	Close()
}

// wire are packet sockets, two for each link: ARP and neighbour advertisements.
// Their frames do not pass the fence.
type wire struct {
	heard   heard
	open    func(link) (*tap, error)
	readers sync.WaitGroup
	taps    map[int]*tap // by the index of the link
	hears   bool
}

type tap struct {
	link   link
	arp    net.PacketConn
	ip6    net.PacketConn
	router bool
	hear   func(on bool) error
	deaf   atomic.Pointer[error] // why one of them is read no more; nil: both are
}

var _ announcer = (*wire)(nil)

func newWire(h heard) *wire { return &wire{heard: h, open: openTap, taps: map[int]*tap{}} }

// Listen implements announcer.
func (w *wire) Listen(links []link) error {
	wanted := map[int]bool{}
	var errs []error
	for _, l := range links {
		if l.Quiet {
			continue
		}
		wanted[l.Index] = true
		if t := w.taps[l.Index]; t != nil {
			t.link = l // it may have a new name or MAC address
			if err := t.deaf.Load(); err != nil {
				// Not anew at once: what ended it may do so again.
				t.close()
				delete(w.taps, l.Index)
				errs = append(errs, fmt.Errorf("listen on %s: %w", l.Name, *err))
			}
			continue
		}
		t, err := w.open(l)
		if err == nil && w.hears {
			if err = t.hear(true); err != nil {
				t.close()
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("listen on %s: %w", l.Name, err))
			continue
		}
		w.taps[l.Index] = t
		for _, conn := range []net.PacketConn{t.arp, t.ip6} {
			w.readers.Go(func() {
				err := w.read(conn, l.Index)
				t.deaf.Store(&err)
			})
		}
	}
	for index, t := range w.taps {
		if !wanted[index] {
			t.close()
			delete(w.taps, index)
		}
	}
	return errors.Join(errs...)
}

// Hear implements announcer.
func (w *wire) Hear(on bool) error {
	if on == w.hears {
		return nil
	}
	var errs []error
	for _, t := range w.taps {
		if err := t.hear(on); err != nil {
			errs = append(errs, fmt.Errorf("listen on %s: %w", t.link.Name, err))
		}
	}
	if len(errs) == 0 {
		w.hears = on
	}
	return errors.Join(errs...)
}

var (
	anyFrame = []bpf.Instruction{bpf.RetConstant{Val: maxFrame}}
	noFrame  = []bpf.Instruction{bpf.RetConstant{Val: 0}}
)

// onlyNA lets neighbour advertisements through: IPv6 whose first header is ICMPv6.
var onlyNA = []bpf.Instruction{
	bpf.LoadAbsolute{Off: etherSize + 6, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 3},
	bpf.LoadAbsolute{Off: etherSize + ip6Size, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: neighbourAdvertisement, SkipTrue: 1},
	bpf.RetConstant{Val: maxFrame},
	bpf.RetConstant{Val: 0},
}

// maxFrame is more than any frame that matters here is long.
const maxFrame = 256

func openTap(l link) (*tap, error) {
	var filters [3][]bpf.RawInstruction
	for i, program := range [...][]bpf.Instruction{noFrame, anyFrame, onlyNA} {
		var err error
		if filters[i], err = bpf.Assemble(program); err != nil {
			return nil, err
		}
	}
	none, every, advertisements := filters[0], filters[1], filters[2]
	device := &net.Interface{Index: l.Index, Name: l.Name, HardwareAddr: l.MAC}
	arp, err := packet.Listen(device, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: none})
	if err != nil {
		return nil, err
	}
	ip6, err := packet.Listen(device, packet.Raw, unix.ETH_P_IPV6, &packet.Config{Filter: none})
	if err != nil {
		_ = arp.Close()
		return nil, err
	}
	hear := func(on bool) error {
		if !on {
			return errors.Join(arp.SetBPF(none), ip6.SetBPF(none))
		}
		return errors.Join(arp.SetBPF(every), ip6.SetBPF(advertisements))
	}
	forwarding, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + strings.ReplaceAll(l.Name, ".", "/") + "/forwarding")
	return &tap{link: l, arp: arp, ip6: ip6, hear: hear, router: err == nil && strings.TrimSpace(string(forwarding)) != "0"}, nil
}

func (t *tap) close() {
	_ = t.arp.Close()
	_ = t.ip6.Close()
}

// read reports what is said until conn fails or is closed, and returns the error.
func (w *wire) read(conn net.PacketConn, index int) error {
	buffer := make([]byte, maxFrame)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once when the interface goes down; the socket lives on
		} else if err != nil {
			return err
		}
		if a, mac, ok := spokenFor(buffer[:n]); ok {
			w.heard(index, a, mac)
		}
	}
}

// Announce implements announcer.
func (w *wire) Announce(l link, a netip.Addr) error {
	t := w.taps[l.Index]
	if t == nil {
		return nil // nobody resolves addresses there, or Listen failed and said so
	}
	conn := t.ip6
	if a.Is4() {
		conn = t.arp
	}
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	frame, to := announcement(a, l.MAC, t.router)
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: to})
	return err
}

// Close implements announcer.
func (w *wire) Close() {
	for index, t := range w.taps {
		t.close()
		delete(w.taps, index)
	}
	w.readers.Wait()
}
