package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/goleak"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeKernel answers sockets as Linux does. Its fields are written between requests
// only.
type fakeKernel struct {
	family uint16 // 0: no module
	opened int
	sends  int     // system calls
	seen   []uint8 // commands that reached the family
	// answer returns the payloads of the answer, or an error; nil and nil is silence.
	answer func(cmd uint8) ([][]byte, error)
	flags  netlink.HeaderFlags // added to those of answers
	skew   uint32              // added to the sequence number of answers
	room   int                 // for how many refusals the socket has room; 0: for all
	// trouble comes once, instead of a datagram, when so many were read; nothing and
	// nil goes on with what the socket holds then.
	trouble func(s *fakeSocket, b []byte) (int, error)
	after   int
}

func (k *fakeKernel) client() *Client {
	open := func(time.Duration) (socket, uint16, error) {
		k.opened++
		if k.family == 0 {
			return nil, 0, &netlink.OpError{Op: "receive", Err: syscall.ENOENT}
		}
		return &fakeSocket{kernel: k}, k.family, nil
	}
	return newClient(open, func() error { return nil }, DefaultTimeout)
}

type fakeSocket struct {
	kernel    *fakeKernel
	closed    bool
	datagrams [][]byte // to be read
	err       error    // before them
}

func (s *fakeSocket) Send(b []byte) error {
	if s.closed {
		return os.ErrClosed
	}
	s.kernel.sends++
	for len(b) > 0 {
		n := binary.NativeEndian.Uint32(b)
		var m netlink.Message
		if err := m.UnmarshalBinary(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		s.carry(m)
	}
	return nil
}

// carry queues the answer to m.
func (s *fakeSocket) carry(m netlink.Message) {
	if family := s.kernel.family; family == 0 || uint16(m.Header.Type) != family {
		s.queue(m, netlink.Error, 0, code(syscall.ENOENT))
		return
	}
	cmd := m.Data[0]
	s.kernel.seen = append(s.kernel.seen, cmd)
	payloads, err := s.kernel.answer(cmd)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno) && s.kernel.room > 0 && len(s.datagrams) >= s.kernel.room, err == errOverrun:
		s.err = syscall.ENOBUFS
	case err != nil:
		s.queue(m, netlink.Error, 0, code(errno))
	case payloads == nil:
	case m.Header.Flags&netlink.Dump == netlink.Dump:
		for _, p := range payloads {
			s.queue(m, netlink.HeaderType(s.kernel.family), netlink.Multi, append([]byte{cmd, 1, 0, 0}, p...))
		}
		s.queue(m, netlink.Done, netlink.Multi, code(0))
	case cmd == cmdGetService, cmd == cmdGetConfig, cmd == cmdGetInfo:
		s.queue(m, netlink.HeaderType(s.kernel.family), 0, append([]byte{cmd, 1, 0, 0}, payloads[0]...))
	case m.Header.Flags&netlink.Acknowledge != 0:
		s.queue(m, netlink.Error, 0, code(0))
	}
}

var errOverrun = errors.New("no room for the answer")

func code(errno syscall.Errno) []byte {
	return binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
}

func (s *fakeSocket) queue(to netlink.Message, kind netlink.HeaderType, flags netlink.HeaderFlags, data []byte) {
	m := netlink.Message{Header: netlink.Header{
		Length: uint32(messageHeader + align(len(data))), Type: kind, Flags: flags | s.kernel.flags,
		Sequence: to.Header.Sequence + s.kernel.skew,
	}, Data: data}
	b, err := m.MarshalBinary()
	if err != nil {
		panic(err)
	}
	s.datagrams = append(s.datagrams, b)
}

func (s *fakeSocket) Receive(ctx context.Context, b []byte, wait time.Duration) (int, error) {
	if s.kernel.after--; s.kernel.trouble != nil && s.kernel.after < 0 {
		trouble := s.kernel.trouble
		s.kernel.trouble = nil
		if n, err := trouble(s, b); n > 0 || err != nil {
			return n, err
		}
	}
	switch {
	case s.closed:
		return 0, os.ErrClosed
	case s.err != nil:
		err := s.err
		s.err = nil
		return 0, os.NewSyscallError("recvmsg", err)
	case len(s.datagrams) == 0: // and nothing comes
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, s.datagrams[0])
	s.datagrams = s.datagrams[1:]
	return n, nil
}

func (s *fakeSocket) Close() error {
	s.closed = true
	return nil
}

var done = [][]byte{{}}

func always(payloads [][]byte, err error) func(uint8) ([][]byte, error) {
	return func(uint8) ([][]byte, error) { return payloads, err }
}

func want(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("error %v does not match %v", err, target)
		}
	}
}

func TestFamilyChanges(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(done, nil)}
	c := k.client()
	want(t, c.Flush(t.Context()), nil)
	k.family = 33 // the module was unloaded and loaded
	want(t, c.Flush(t.Context()), nil)
	if len(k.seen) != 2 || k.opened != 2 {
		t.Errorf("%d requests over %d sockets, want 2 over 2", len(k.seen), k.opened)
	}
	k.family = 0
	want(t, c.Flush(t.Context()), ErrNoModule, os.ErrNotExist)
	want(t, c.Flush(t.Context()), ErrNoModule)
	k.family = 34
	want(t, c.Flush(t.Context()), nil)
}

func TestMissingObjectIsNoStaleFamily(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(nil, syscall.ENOENT)}
	err := k.client().DeleteDestination(t.Context(), ipvs.ServiceMarked(ipvs.IPv4, 1), netip.MustParseAddrPort("10.9.0.21:80"))
	want(t, err, os.ErrNotExist, syscall.ENOENT)
	if errors.Is(err, ErrNoModule) || len(k.seen) != 1 {
		t.Errorf("error %v after %d requests", err, len(k.seen))
	}
}

func TestRefusalKeepsTheSocket(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(nil, syscall.EPERM)}
	c := k.client()
	for range 3 {
		_, err := c.Services(t.Context())
		want(t, err, os.ErrPermission)
	}
	if k.opened != 1 {
		t.Errorf("%d sockets, want 1", k.opened)
	}
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{family: 32, answer: always(nil, nil)}
		c := k.client()
		start := time.Now()
		_, err := c.Info(t.Context())
		want(t, err, ErrUnanswered, os.ErrDeadlineExceeded)
		if took := time.Since(start); took != DefaultTimeout {
			t.Errorf("gave up after %s, want %s", took, DefaultTimeout)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		want(t, c.Flush(ctx), ErrUnanswered, context.DeadlineExceeded)
		if took := time.Since(start); took != time.Second {
			t.Errorf("gave up after %s, want 1s", took)
		}

		k.answer = always(done, nil)
		want(t, c.Flush(t.Context()), nil)
		if k.opened != 3 {
			t.Errorf("%d sockets, want a new one after each silence", k.opened)
		}
	})
}

func TestAnswerCountsThoughTheContextEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	k := &fakeKernel{family: 32}
	k.answer = func(uint8) ([][]byte, error) {
		cancel()
		return nil, syscall.EPERM
	}
	err := k.client().Flush(ctx)
	want(t, err, os.ErrPermission)
	if errors.Is(err, ErrUnanswered) {
		t.Errorf("error %v, but the kernel answered", err)
	}
}

func TestWaitingForATurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{family: 32, answer: always(nil, nil)}
		c := k.client()
		go func() { _ = c.Flush(t.Context()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.Flush(ctx)
		want(t, err, context.DeadlineExceeded)
		if errors.Is(err, ErrUnanswered) || len(k.seen) != 1 {
			t.Errorf("error %v after %d requests: the second was never sent", err, len(k.seen))
		}
	})
}

func TestLateAnswerIsNotTaken(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(done, nil), skew: 1}
	c := k.client()
	if err := c.Flush(t.Context()); err == nil {
		t.Error("an answer to another request was taken")
	}
	k.skew = 0
	want(t, c.Flush(t.Context()), nil)
	if k.opened != 2 {
		t.Errorf("%d sockets, want 2", k.opened)
	}
}

func TestLostAnswers(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(nil, errOverrun)}
	_, err := k.client().Services(t.Context())
	want(t, err, ErrUnanswered, syscall.ENOBUFS)
}

func TestStopDaemonUnanswered(t *testing.T) {
	master := appendDaemon(nil, ipvs.Daemon{State: ipvs.Master, Interface: "lo"})
	backup := appendDaemon(nil, ipvs.Daemon{State: ipvs.Backup, Interface: "lo"})
	tests := []struct {
		name    string
		running [][]byte
		want    error
	}{
		{"stopped", [][]byte{}, nil},
		{"stopped, the other runs", [][]byte{backup}, nil},
		{"still there", [][]byte{master, backup}, ErrUnanswered},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &fakeKernel{family: 32}
				k.answer = func(cmd uint8) ([][]byte, error) {
					if cmd == cmdGetDaemon {
						return test.running, nil
					}
					return nil, nil
				}
				start := time.Now()
				want(t, k.client().StopDaemon(t.Context(), ipvs.Master), test.want)
				if took := time.Since(start); took != stopAnswer {
					t.Errorf("took %s, want %s", took, stopAnswer)
				}
				if k.opened != 2 {
					t.Errorf("asked over the socket that may yet get an answer")
				}
			})
		})
	}
}

func TestClosed(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(done, nil)}
	c := k.client()
	want(t, c.Flush(t.Context()), nil)
	want(t, c.Close(), nil)
	want(t, c.Close(), nil)
	want(t, c.Flush(t.Context()), os.ErrClosed)
	_, err := c.Table(t.Context())
	want(t, err, os.ErrClosed)
}

// heldSocket hands on what it is to send when it is let.
type heldSocket struct {
	socket
	asked, let chan struct{}
}

func (s heldSocket) Send(b []byte) error {
	close(s.asked)
	<-s.let
	return s.socket.Send(b)
}

// TestEditsDoNotWaitForATable edits while a table's first list is under way.
func TestEditsDoNotWaitForATable(t *testing.T) {
	k := &fakeKernel{family: 32}
	k.answer = func(cmd uint8) ([][]byte, error) {
		if cmd == cmdGetService {
			return [][]byte{}, nil
		}
		return done, nil
	}
	c := k.client()
	asked, let := make(chan struct{}), make(chan struct{})
	open := c.reading.open
	c.reading.open = func(wait time.Duration) (socket, uint16, error) {
		s, family, err := open(wait)
		return heldSocket{s, asked, let}, family, err
	}
	read := make(chan error, 1)
	go func() {
		_, err := c.Table(t.Context())
		read <- err
	}()
	select {
	case <-asked:
	case err := <-read:
		t.Fatalf("the table was read over the socket of edits, error %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	want(t, c.Flush(ctx), nil)
	close(let)
	want(t, <-read, nil)
}

func TestTableSkipsWhatVanished(t *testing.T) {
	s := ipvs.Service{Key: ipvs.ServiceMarked(ipvs.IPv4, 1), Scheduler: "rr"}
	payload := appendService(nil, &s)
	k := &fakeKernel{family: 32}
	k.answer = func(cmd uint8) ([][]byte, error) {
		switch {
		case cmd == cmdGetDest:
			return [][]byte{}, nil
		case len(k.seen) == 1:
			return [][]byte{payload, payload}, nil // twice, as a dump during writes may have it
		}
		return nil, syscall.ESRCH
	}
	table, err := k.client().Table(t.Context())
	if err != nil || table.Len() != 0 {
		t.Errorf("%d services, error %v", table.Len(), err)
	}
	if len(k.seen) != 3 {
		t.Errorf("%d requests, want the list, one list of destinations, one confirmation", len(k.seen))
	}
}

// TestTableLosesNoneBesideWhatVanished has the last service vanish after the list.
func TestTableLosesNoneBesideWhatVanished(t *testing.T) {
	at := func(mark uint32) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(mark >> 8), byte(mark)}), 80)
	}
	k := &fakeKernel{family: 32}
	k.answer = func(cmd uint8) ([][]byte, error) {
		switch {
		case len(k.seen) == 1:
			var list [][]byte
			for mark := range uint32(1000) {
				list = append(list, appendService(nil, &ipvs.Service{Key: ipvs.ServiceMarked(ipvs.IPv4, mark+1), Scheduler: "rr"}))
			}
			return list, nil
		case cmd == cmdGetDest && len(k.seen) == 1001:
			return [][]byte{}, nil
		case cmd == cmdGetDest:
			destination := appendDestination(nil, &ipvs.Destination{Addr: at(uint32(len(k.seen) - 1)), Forward: ipvs.Masq})
			return [][]byte{destination, destination}, nil
		}
		return nil, syscall.ESRCH
	}
	table, err := k.client().Table(t.Context())
	if err != nil || table.Len() != 999 {
		t.Fatalf("%d services, error %v", table.Len(), err)
	}
	for s := range table.Services() {
		if len(s.Destinations) != 1 || s.Destinations[0].Addr != at(s.Key.FWMark) {
			t.Errorf("%s has destinations %v, want %s", s.Key, s.Destinations, at(s.Key.FWMark))
		}
	}
}

func TestTableOfNonsense(t *testing.T) {
	k := &fakeKernel{family: 32}
	k.answer = func(cmd uint8) ([][]byte, error) {
		if cmd == cmdGetDest {
			return [][]byte{appendNest(nil, attrDest, func(b []byte) []byte { return appendAttr(b, destPort, 1) })}, nil
		}
		var list [][]byte
		for mark := range uint32(20_000) { // more than what waits to be decoded
			list = append(list, appendService(nil, &ipvs.Service{Key: ipvs.ServiceMarked(ipvs.IPv4, mark+1), Scheduler: "rr"}))
		}
		return list, nil
	}
	if _, err := k.client().Table(t.Context()); err == nil || !strings.Contains(err.Error(), "not understood") {
		t.Errorf("error %v", err)
	}
}
