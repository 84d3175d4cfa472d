package vip

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// fakeConn is a packet socket that says what a test has it say.
type fakeConn struct {
	net.PacketConn // nil: what is not below is not called
	frames         chan []byte
	fail           chan error
	closed         chan struct{}
}

func (c *fakeConn) ReadFrom(buffer []byte) (int, net.Addr, error) {
	select {
	case f := <-c.frames:
		return copy(buffer, f), nil, nil
	case err := <-c.fail:
		return 0, nil, err
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *fakeConn) Close() error { close(c.closed); return nil }

// TestListensAnew after a socket has failed, not at once, and says meanwhile that
// nobody listens.
func TestListensAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opened []*fakeConn
		conn := func() *fakeConn {
			c := &fakeConn{frames: make(chan []byte), fail: make(chan error, 1), closed: make(chan struct{})}
			opened = append(opened, c)
			return c
		}
		var from []netip.Addr
		hears := false
		w := newWire(func(_ int, a netip.Addr, _ net.HardwareAddr) { from = append(from, a) })
		w.open = func(l link) (*tap, error) {
			return &tap{link: l, arp: conn(), ip6: conn(), hear: func(on bool) error { hears = on; return nil }}, nil
		}
		defer w.Close()
		links := []link{{Name: "eth0", Index: 2, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}}
		listen := func(want error, sockets int) {
			t.Helper()
			if err := w.Listen(links); !errors.Is(err, want) || len(opened) != sockets {
				t.Errorf("listen: %v, want %v; %d sockets were opened, want %d", err, want, len(opened), sockets)
			}
			synctest.Wait()
		}
		listen(nil, 2)
		listen(nil, 2)
		if err := w.Hear(true); err != nil || !hears {
			t.Errorf("told to hear: %v", err)
		}
		hears = false
		opened[1].fail <- errRefused
		synctest.Wait()
		listen(errRefused, 2)
		listen(nil, 4)
		listen(nil, 4)
		if !hears {
			t.Error("the new sockets do not hear")
		}
		frame, _ := announcement(netip.MustParseAddr("10.9.0.100"), net.HardwareAddr{2, 0, 0, 0, 0, 99}, false)
		opened[2].frames <- frame
		synctest.Wait()
		if len(from) != 1 {
			t.Errorf("heard %v", from)
		}
	})
}

// TestDeafnessIsSaid in status, and tried to end several times a second.
func TestDeafnessIsSaid(t *testing.T) {
	for _, what := range []string{"listen", "hear"} {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			own(h, k, time.Hour, addresses(vip4)...)
			h.mu.Lock()
			h.refuse[what] = errRefused
			h.mu.Unlock()
			time.Sleep(lookEvery + lookGap)
			synctest.Wait()
			if got := messages(k); got != "announcements: refused" {
				t.Errorf("%s: errors: %s", what, got)
			}
			h.mu.Lock()
			delete(h.refuse, what)
			h.mu.Unlock()
			time.Sleep(lookRetry + lookGap)
			synctest.Wait()
			if got := messages(k); got != "" {
				t.Errorf("%s: errors: %s", what, got)
			}
		})
	}
}
