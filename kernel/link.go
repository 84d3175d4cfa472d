package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// socket is what a link needs of a generic netlink socket.
type socket interface {
	Send(m genetlink.Message, family uint16, flags netlink.HeaderFlags) (netlink.Message, error)
	Receive() ([]genetlink.Message, []netlink.Message, error)
	GetFamily(name string) (genetlink.Family, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

var _ socket = (*genetlink.Conn)(nil)

// link is the way to the kernel's IPVS: a socket for one request at a time, opened
// anew when it may hold the late answer of a request that was given up.
type link struct {
	open    func() (socket, error)
	release func() error // frees what open needs
	timeout time.Duration
	turn    chan struct{} // holds one value while the fields below are in use

	closed bool
	sock   socket // nil: to be opened
	family uint16
}

func newLink(open func() (socket, error), release func() error, timeout time.Duration) *link {
	return &link{open: open, release: release, timeout: timeout, turn: make(chan struct{}, 1)}
}

// exchange sends c and returns the payloads of the answer. It waits at most wait
// for it, or until ctx ends.
func (l *link) exchange(ctx context.Context, c command, wait time.Duration) ([][]byte, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.connect(); err != nil {
		return nil, err
	}
	answer, err := l.attempt(ctx, c, wait)
	if errors.Is(err, syscall.ENOENT) && l.sock != nil {
		// Either the object is missing or the family's number is stale: it changes when
		// the module is unloaded and loaded again.
		before := l.family
		if err := l.resolve(); err != nil {
			return nil, err
		}
		if l.family != before {
			return l.attempt(ctx, c, wait)
		}
	}
	return answer, err
}

// connect opens the socket when there is none.
func (l *link) connect() error {
	if l.closed {
		return os.ErrClosed
	}
	if l.sock != nil {
		return nil
	}
	sock, err := l.open()
	if err != nil {
		return err
	}
	l.sock = sock
	return l.resolve()
}

// resolve looks the family's number up, which also loads the module.
func (l *link) resolve() error {
	err := l.sock.SetReadDeadline(time.Now().Add(l.timeout))
	var family genetlink.Family
	if err == nil {
		family, err = l.sock.GetFamily(familyName)
	}
	if err != nil {
		l.drop()
		if errors.Is(err, syscall.ENOENT) {
			return Request{Op: OpDial}.Refused(syscall.ENOENT)
		}
		return fmt.Errorf("look up generic netlink family %s: %w", familyName, err)
	}
	l.family = family.ID
	return nil
}

// drop closes the socket; the next request opens a new one.
func (l *link) drop() {
	if l.sock != nil {
		_ = l.sock.Close() // nothing depends on it
		l.sock = nil
	}
}

// attempt sends c once. After any error but a refusal the socket is dropped,
// because the answer may still come.
func (l *link) attempt(ctx context.Context, c command, wait time.Duration) (payloads [][]byte, err error) {
	defer func() {
		var errno syscall.Errno
		if err != nil && !refusal(err, &errno) {
			l.drop()
		}
	}()
	flags := netlink.Request
	switch c.cmd {
	case cmdGetService, cmdGetDest, cmdGetDaemon, cmdGetConfig, cmdGetInfo:
		if c.dump {
			flags |= netlink.Dump
		}
	default:
		flags |= netlink.Acknowledge // without it a success is not answered
	}
	m := genetlink.Message{Header: genetlink.Header{Command: c.cmd, Version: familyVersion}, Data: c.attrs}
	sent, err := l.sock.Send(m, l.family, flags)
	if err != nil {
		return nil, err
	}
	// The kernel has carried out the request by now, however long that took, except
	// for the rest of a dump: the deadline is for the answer.
	if err := l.sock.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	sock := l.sock
	stop := context.AfterFunc(ctx, func() { _ = sock.SetReadDeadline(time.Unix(1, 0)) })
	messages, headers, err := l.sock.Receive()
	if !stop() {
		l.drop() // its deadline is over or will be
	}
	if err != nil {
		return nil, answerError(ctx, err, wait)
	}
	if err := netlink.Validate(sent, headers); err != nil {
		return nil, err
	}
	for _, m := range messages {
		payloads = append(payloads, m.Data)
	}
	return payloads, nil
}

// answerError says why no answer came, unless err is one.
func answerError(ctx context.Context, err error, wait time.Duration) error {
	var errno syscall.Errno
	if refusal(err, &errno) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrUnanswered, ctx.Err())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w after %s", ErrUnanswered, os.ErrDeadlineExceeded, wait)
	}
	return err
}

// refusal reports whether err is the kernel's answer, and sets errno to it. Errors
// of system calls on the socket are none.
func refusal(err error, errno *syscall.Errno) bool {
	var op *netlink.OpError
	if !errors.As(err, &op) {
		return false
	}
	answer, ok := op.Err.(syscall.Errno)
	*errno = answer
	return ok
}

// close waits for the request in flight.
func (l *link) close() error {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.closed {
		return nil
	}
	l.closed = true
	l.drop()
	return l.release()
}

// opener returns a function that opens sockets in the network namespace of the
// calling thread, whichever thread calls it, and one that ends its use.
func opener() (open func() (socket, error), release func() error, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, nil, fmt.Errorf("open the network namespace: %w", err)
	}
	open = func() (socket, error) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		config := &netlink.Config{
			// A dump's messages are as long as the largest buffer seen; the default
			// of about 4 KiB makes dumps of large tables five times slower.
			MessageBufferSize: 32 << 10,
		}
		if !current(home) { // entering it would need CAP_SYS_ADMIN
			config.NetNS = int(home.Fd())
		}
		conn, err := genetlink.Dial(config)
		if err != nil {
			return nil, fmt.Errorf("open a generic netlink socket: %w", err)
		}
		return conn, nil
	}
	return open, home.Close, nil
}

// current reports whether home is the calling thread's network namespace.
func current(home *os.File) bool {
	here, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return false
	}
	there, err := home.Stat()
	return err == nil && os.SameFile(here, there)
}
