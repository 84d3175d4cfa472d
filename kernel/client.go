package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// DefaultTimeout is how long a Client waits for an answer.
const DefaultTimeout = 5 * time.Second

// Client speaks to the IPVS of one network namespace. It is safe for concurrent
// use. Edits are carried out one after the other.
//
// Each method returns an *OpError; which errors it matches is said there. A method
// that changes something and gets no answer, because of its context or the timeout,
// returns an error that matches ErrUnanswered.
type Client struct {
	link    *link
	reading *link // of Table, so that others do not wait for a long list; a second socket
	release func() error
}

// newClient returns a client whose sockets are opened by open when they are used first.
// release frees what open needs.
func newClient(open func(wait time.Duration) (socket, uint16, error), release func() error, timeout time.Duration) *Client {
	return &Client{link: newLink(open, timeout), reading: newLink(open, timeout), release: sync.OnceValue(release)}
}

// Option changes what Dial does.
type Option func(*options)

type options struct {
	timeout time.Duration
	later   bool
}

// Later leaves the first contact with the kernel to the first use of the Client,
// for a kernel whose IPVS module may come later. Dial then fails only when it cannot
// find the namespace.
func Later() Option {
	return func(o *options) { o.later = true }
}

// WithTimeout sets how long to wait for each answer, instead of DefaultTimeout. The
// end of a call's context counts too when it comes earlier. What the kernel itself
// takes, before it begins to answer, cannot be interrupted and does not count.
func WithTimeout(d time.Duration) Option {
	return func(o *options) { o.timeout = d }
}

// Dial opens a socket to the IPVS of the calling thread's network namespace; a
// caller that wants another one than its process's enters it with the goroutine
// locked to its thread. The Client stays with that namespace.
//
// The error matches ErrNoModule when the kernel has no IPVS. Missing privileges
// show only when the Client is used.
func Dial(opts ...Option) (*Client, error) {
	o := options{timeout: DefaultTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	home, err := here()
	if err != nil {
		return nil, &OpError{Op: OpDial, Err: err}
	}
	c := newClient(home.open, home.close, o.timeout)
	if o.later {
		return c, nil
	}
	if err := c.link.connect(); err != nil {
		_ = c.Close() // the first error counts
		return nil, opError(Request{Op: OpDial}, err)
	}
	return c, nil
}

// Close ends the use of c once the exchanges in flight are over. Later calls return
// errors that match os.ErrClosed.
func (c *Client) Close() error {
	c.link.close()
	c.reading.close()
	return c.release()
}

// do carries out r, which is answered with an acknowledgement.
func (c *Client) do(ctx context.Context, r Request) error {
	return c.doWithin(ctx, r, c.link.timeout)
}

func (c *Client) doWithin(ctx context.Context, r Request, wait time.Duration) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := c.link.ask(ctx, r, wait, func([]byte) error { return nil }); err != nil {
		return opError(r, err)
	}
	return nil
}

// maxReads is how often a list is read when answers were lost or the kernel says
// that it changed meanwhile.
const maxReads = 3

// list carries out r and calls each with each message of the answer, which it must
// not keep; reset before that, and before the answer is read again.
func list(ctx context.Context, l *link, r Request, reset func(), each func(payload []byte) error) (err error) {
	if err := r.Check(); err != nil {
		return err
	}
	for range maxReads {
		reset()
		err = l.ask(ctx, r, l.timeout, each)
		if !errors.Is(err, errInterrupted) && !errors.Is(err, syscall.ENOBUFS) {
			break
		}
	}
	if err != nil {
		return opError(r, err)
	}
	return nil
}

// read carries out r and returns what decode makes of each message of the answer.
func read[T any](ctx context.Context, l *link, r Request, decode func([]byte) (T, error)) ([]T, error) {
	values := []T{}
	err := list(ctx, l, r, func() { values = values[:0] }, func(payload []byte) error {
		v, err := decode(payload)
		if err != nil {
			return malformed(r, err)
		}
		values = append(values, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return values, nil
}

// readOne carries out a request that is answered with one message.
func readOne[T any](ctx context.Context, l *link, r Request, decode func([]byte) (T, error)) (T, error) {
	answer, err := read(ctx, l, r, decode)
	if err == nil && len(answer) != 1 {
		err = malformed(r, fmt.Errorf("%d messages instead of one", len(answer)))
	}
	if err != nil {
		var none T
		return none, err
	}
	return answer[0], nil
}

// opError returns err as the error of r.
func opError(r Request, err error) error {
	var whole *OpError
	var answer refused
	switch {
	case errors.As(err, &whole): // of the link: r.Op could not even be sent
		return &OpError{Op: r.Op, Object: r.Object(), Hint: whole.Hint, Err: whole.Err, Kind: whole.Kind}
	case errors.As(err, &answer):
		return r.Refused(syscall.Errno(answer))
	case errors.Is(err, syscall.ENOBUFS):
		return r.Refused(syscall.ENOBUFS)
	}
	return &OpError{Op: r.Op, Object: r.Object(), Err: err}
}

// Services returns all virtual services in no particular order, none of them
// twice. The list is no snapshot: while the table is written to, by whomever, a
// service that was there all the time may be missing from it.
func (c *Client) Services(ctx context.Context) ([]ipvs.ServiceEntry, error) {
	entries, err := read(ctx, c.link, Request{Op: OpServices}, decodeService)
	if err != nil {
		return nil, err
	}
	return unique(entries, func(e ipvs.ServiceEntry) ipvs.ServiceKey { return e.Key }), nil
}

// unique deletes from values what has the key of something before it.
func unique[T any, K comparable](values []T, key func(T) K) []T {
	seen := make(map[K]bool, len(values))
	return slices.DeleteFunc(values, func(v T) bool {
		k := key(v)
		twice := seen[k]
		seen[k] = true
		return twice
	})
}

// Service returns the virtual service with the given key, without its
// destinations. The error matches ErrNoService when there is none.
func (c *Client) Service(ctx context.Context, key ipvs.ServiceKey) (ipvs.ServiceEntry, error) {
	return readOne(ctx, c.link, Request{Op: OpService, Key: key}, decodeService)
}

func malformed(r Request, err error) error {
	return &OpError{Op: r.Op, Object: r.Object(), Hint: "the kernel's answer is not understood", Err: err}
}

// Destinations returns the destinations of a virtual service in no particular
// order, none of them twice. The error matches ErrNoService when there is no such
// service. As for Services, the list is no snapshot.
func (c *Client) Destinations(ctx context.Context, key ipvs.ServiceKey) ([]ipvs.DestinationEntry, error) {
	r := Request{Op: OpDestinations, Key: key}
	entries, err := read(ctx, c.link, r, func(payload []byte) (ipvs.DestinationEntry, error) {
		return decodeDestination(key.Family, payload)
	})
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 { // the kernel answers so too when there is no service
		if _, err := c.Service(ctx, key); err != nil {
			return nil, err
		}
	}
	return unique(entries, func(e ipvs.DestinationEntry) netip.AddrPort { return e.Addr }), nil
}
