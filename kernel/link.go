package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// refused is the kernel's answer to a request that it did not carry out. Errors of
// system calls on the socket are none.
type refused syscall.Errno

func (r refused) Error() string { return syscall.Errno(r).Error() }

var (
	errStray       = errors.New("an answer to another request")
	errInterrupted = errors.New("the kernel's table changed while it was read")
)

// link is a way to the kernel's IPVS: a socket for one exchange at a time, opened
// anew when it may hold the late answer of one that was given up.
type link struct {
	open    func(wait time.Duration) (socket, uint16, error) // a socket, and the family's number
	timeout time.Duration
	turn    chan struct{} // holds one value while the fields below are in use

	closed   bool
	sock     socket // nil: to be opened
	family   uint16
	sequence uint32 // of the last request
	out, in  []byte // a request, a datagram
}

func newLink(open func(time.Duration) (socket, uint16, error), timeout time.Duration) *link {
	return &link{open: open, timeout: timeout, turn: make(chan struct{}, 1)}
}

// take waits for the caller's turn, which leave ends, and for a socket.
func (l *link) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := ctx.Err()
	if err == nil {
		err = l.connect()
	}
	if err != nil {
		l.leave()
	}
	return err
}

func (l *link) leave() { <-l.turn }

// connect opens the socket when there is none.
func (l *link) connect() error {
	if l.closed {
		return os.ErrClosed
	}
	if l.sock != nil {
		return nil
	}
	sock, family, err := l.open(l.timeout)
	if errors.Is(err, syscall.ENOENT) {
		return Request{Op: OpDial}.Refused(syscall.ENOENT)
	}
	if err != nil {
		return err
	}
	l.sock, l.family = sock, family
	if l.in == nil {
		l.in = make([]byte, datagram)
	}
	return nil
}

// moved reports whether the family has another number than before. It changes when
// the module is unloaded and loaded again; the kernel's answer to a request with the
// old one is that for a missing object, ENOENT.
func (l *link) moved() (bool, error) {
	before := l.family
	l.drop()
	err := l.connect()
	return err == nil && l.family != before, err
}

// drop closes the socket; the next request opens a new one.
func (l *link) drop() {
	if l.sock != nil {
		_ = l.sock.Close() // nothing depends on it
		l.sock = nil
	}
}

// ask sends r and calls each with the payload of each message of the answer, which
// it must not keep. It waits at most wait for each part of the answer, or until ctx
// ends. After an error the answer is not whole.
func (l *link) ask(ctx context.Context, r Request, wait time.Duration, each func(payload []byte) error) error {
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.leave()
	err := l.attempt(ctx, r, wait, each)
	if err != refused(syscall.ENOENT) {
		return err
	}
	if moved, lookup := l.moved(); lookup != nil {
		return lookup
	} else if moved {
		return l.attempt(ctx, r, wait, each)
	}
	return err
}

// attempt sends r once. After any error but a refusal the socket is dropped,
// because there may be more of the answer.
func (l *link) attempt(ctx context.Context, r Request, wait time.Duration, each func(payload []byte) error) (err error) {
	defer func() {
		var answer refused
		if err != nil && !errors.As(err, &answer) {
			l.drop()
		}
	}()
	l.sequence++
	l.out = appendRequest(l.out[:0], r)
	stamp(l.out, l.family, l.sequence)
	if err := l.sock.Send(l.out); err != nil {
		return err
	}
	interrupted := false
	for {
		b, err := l.receive(ctx, wait)
		if err != nil {
			return err
		}
		for len(b) > 0 {
			var m message
			if m, b, err = cut(b); err != nil {
				return err
			}
			if m.sequence != l.sequence {
				return errStray
			}
			interrupted = interrupted || m.flags&netlink.DumpInterrupted != 0
			last, err := m.deliver(each)
			switch {
			case err != nil:
				return err
			case last && interrupted:
				return errInterrupted
			case last:
				return nil
			}
		}
		if err := ctx.Err(); err != nil { // what is there already is read without waiting
			return unanswered(err)
		}
	}
}

// deliver gives the payload to each, and reports whether m ends an answer.
func (m message) deliver(each func(payload []byte) error) (last bool, err error) {
	switch m.kind {
	case netlink.Error, netlink.Done:
		errno, err := m.verdict()
		if err == nil && errno != 0 {
			err = refused(errno)
		}
		return true, err
	}
	payload, err := m.payload()
	if err == nil {
		err = each(payload)
	}
	return m.flags&netlink.Multi == 0, err
}

// submit sends b and sets its errs. The kernel may have carried out the requests
// whose error matches ErrUnanswered, and has not carried out the others with errors.
func (l *link) submit(ctx context.Context, b *batch) {
	if err := l.take(ctx); err != nil {
		b.fail(0, err)
		return
	}
	defer l.leave()
	l.attemptBatch(ctx, b)
	again := b.missing()
	if again.len() == 0 {
		return
	}
	moved, err := l.moved()
	switch {
	case err != nil:
		again.fail(0, err)
	case moved:
		l.attemptBatch(ctx, again)
	default:
		return
	}
	for i, at := range again.changes {
		b.errs[at] = again.errs[i]
	}
}

// attemptBatch sends b once. Unless all of it is answered, the socket is dropped.
func (l *link) attemptBatch(ctx context.Context, b *batch) {
	first := l.sequence + 1
	l.sequence += uint32(b.len())
	b.stamp(l.family, first)
	if err := l.sock.Send(b.buffer); err != nil {
		l.drop()
		b.fail(0, err)
		return
	}
	for known := 0; known < b.len(); {
		datagram, err := l.receive(ctx, l.timeout)
		for err == nil && len(datagram) > 0 {
			var m message
			if m, datagram, err = cut(datagram); err == nil {
				known, err = b.answer(known, m, m.sequence-first)
			}
		}
		if err != nil {
			l.drop()
			b.fail(known, unanswered(err))
			return
		}
	}
}

// receive returns the next datagram, which is good until the next call. It waits at
// most wait, or until ctx ends, but takes what is there without looking at either:
// the kernel has answered by the time a request is sent, so that an answer is rarely
// waited for, and never lost to a deadline.
func (l *link) receive(ctx context.Context, wait time.Duration) ([]byte, error) {
	n, err := l.sock.Receive(ctx, l.in, wait)
	switch {
	case err == nil:
		return l.in[:n], nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return nil, err
	case ctx.Err() != nil:
		return nil, unanswered(ctx.Err())
	}
	return nil, fmt.Errorf("%w: %w after %s", ErrUnanswered, os.ErrDeadlineExceeded, wait)
}

// unanswered returns err as one after which the outcome is not known.
func unanswered(err error) error {
	if errors.Is(err, ErrUnanswered) || errors.Is(err, syscall.ENOBUFS) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnanswered, err)
}

// close waits for the exchange in flight.
func (l *link) close() {
	l.turn <- struct{}{}
	defer l.leave()
	l.closed = true
	l.drop()
}
