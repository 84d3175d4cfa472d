package kernel

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"go.uber.org/goleak"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeKernel answers sockets. Its fields are written between requests only.
type fakeKernel struct {
	family  uint16 // 0: no module
	opened  int
	lookups int
	seen    []uint8 // commands that reached the family
	// answer returns the payloads of the answer, or an error; nil and nil is silence.
	answer func(cmd uint8) ([][]byte, error)
	skew   uint32 // added to the sequence number of answers
}

func (k *fakeKernel) client() *Client {
	open := func() (socket, error) {
		k.opened++
		return &fakeSocket{kernel: k, deadline: make(chan time.Time, 100)}, nil
	}
	return &Client{link: newLink(open, func() error { return nil }, DefaultTimeout)}
}

type fakeSocket struct {
	kernel   *fakeKernel
	deadline chan time.Time
	closed   bool
	sequence uint32
	payloads [][]byte
	err      error
}

func refused(errno syscall.Errno) error { return &netlink.OpError{Op: "receive", Err: errno} }

func (s *fakeSocket) Send(m genetlink.Message, family uint16, flags netlink.HeaderFlags) (netlink.Message, error) {
	s.sequence++
	switch {
	case s.closed:
		return netlink.Message{}, os.ErrClosed
	case s.kernel.family == 0 || family != s.kernel.family:
		s.payloads, s.err = nil, refused(syscall.ENOENT)
	default:
		s.kernel.seen = append(s.kernel.seen, m.Header.Command)
		s.payloads, s.err = s.kernel.answer(m.Header.Command)
	}
	return netlink.Message{Header: netlink.Header{Sequence: s.sequence, Flags: flags}}, nil
}

func (s *fakeSocket) Receive() ([]genetlink.Message, []netlink.Message, error) {
	if s.err != nil {
		return nil, nil, s.err
	}
	if s.payloads == nil { // silence
		var end <-chan time.Time
		for {
			select {
			case at := <-s.deadline:
				end = time.After(time.Until(at))
			case <-end:
				return nil, nil, &netlink.OpError{Op: "receive", Err: os.NewSyscallError("recvmsg", os.ErrDeadlineExceeded)}
			}
		}
	}
	var messages []genetlink.Message
	var headers []netlink.Message
	for _, p := range s.payloads {
		messages = append(messages, genetlink.Message{Data: p})
		headers = append(headers, netlink.Message{Header: netlink.Header{Sequence: s.sequence + s.kernel.skew}})
	}
	return messages, headers, nil
}

func (s *fakeSocket) GetFamily(string) (genetlink.Family, error) {
	s.kernel.lookups++
	if s.kernel.family == 0 {
		return genetlink.Family{}, refused(syscall.ENOENT)
	}
	return genetlink.Family{ID: s.kernel.family}, nil
}

func (s *fakeSocket) SetReadDeadline(t time.Time) error {
	s.deadline <- t
	return nil
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
	if len(k.seen) != 2 || k.opened != 1 {
		t.Errorf("%d requests over %d sockets, want 2 over 1", len(k.seen), k.opened)
	}
	k.family = 0
	want(t, c.Flush(t.Context()), ErrNoModule, os.ErrNotExist)
	want(t, c.Flush(t.Context()), ErrNoModule)
	k.family = 34
	want(t, c.Flush(t.Context()), nil)
}

func TestMissingObjectIsNoStaleFamily(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(nil, refused(syscall.ENOENT))}
	err := k.client().DeleteDestination(t.Context(), ipvs.ServiceMarked(ipvs.IPv4, 1), netip.MustParseAddrPort("10.9.0.21:80"))
	want(t, err, os.ErrNotExist, syscall.ENOENT)
	if errors.Is(err, ErrNoModule) || len(k.seen) != 1 {
		t.Errorf("error %v after %d requests", err, len(k.seen))
	}
}

func TestRefusalKeepsTheSocket(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(nil, refused(syscall.EPERM))}
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
		return nil, refused(syscall.EPERM)
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
	k := &fakeKernel{family: 32, answer: always(nil, &netlink.OpError{Op: "receive", Err: os.NewSyscallError("recvmsg", syscall.ENOBUFS)})}
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
		return nil, refused(syscall.ESRCH)
	}
	table, err := k.client().Table(t.Context())
	if err != nil || table.Len() != 0 {
		t.Errorf("%d services, error %v", table.Len(), err)
	}
	if len(k.seen) != 3 {
		t.Errorf("%d requests, want the list, one list of destinations, one confirmation", len(k.seen))
	}
}
