package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// DefaultTimeout is how long a Client waits for an answer.
const DefaultTimeout = 5 * time.Second

// Client speaks to the IPVS of one network namespace. It is safe for concurrent
// use and carries out one request at a time.
//
// Each method returns an *OpError; which errors it matches is said there. A method
// that changes something and gets no answer, because of its context or the timeout,
// returns an error that matches ErrUnanswered.
type Client struct {
	link *link
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
	open, release, err := opener()
	if err != nil {
		return nil, &OpError{Op: OpDial, Err: err}
	}
	c := &Client{link: newLink(open, release, o.timeout)}
	if o.later {
		return c, nil
	}
	if err := c.link.connect(); err != nil {
		_ = c.link.close() // the first error counts
		return nil, opError(Request{Op: OpDial}, err)
	}
	return c, nil
}

// Close ends the use of c once the request in flight is answered. Later calls
// return errors that match os.ErrClosed.
func (c *Client) Close() error { return c.link.close() }

// do carries out r and returns the payloads of the answer.
func (c *Client) do(ctx context.Context, r Request) ([][]byte, error) {
	return c.doWithin(ctx, r, c.link.timeout)
}

func (c *Client) doWithin(ctx context.Context, r Request, wait time.Duration) ([][]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	answer, err := c.link.exchange(ctx, encode(r), wait)
	if err != nil {
		return nil, opError(r, err)
	}
	return answer, nil
}

// opError returns err as the error of r.
func opError(r Request, err error) error {
	var whole *OpError
	var errno syscall.Errno
	switch {
	case errors.As(err, &whole): // of the link: r.Op could not even be sent
		return &OpError{Op: r.Op, Object: r.Object(), Hint: whole.Hint, Err: whole.Err, Kind: whole.Kind}
	case refusal(err, &errno):
		return r.Refused(errno)
	case errors.Is(err, syscall.ENOBUFS):
		return r.Refused(syscall.ENOBUFS)
	}
	return &OpError{Op: r.Op, Object: r.Object(), Err: err}
}

// Services returns all virtual services in no particular order, none of them
// twice. The list is no snapshot: while the table is written to, by whomever, a
// service that was there all the time may be missing from it.
func (c *Client) Services(ctx context.Context) ([]ipvs.ServiceEntry, error) {
	r := Request{Op: OpServices}
	answer, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	entries := make([]ipvs.ServiceEntry, 0, len(answer))
	seen := make(map[ipvs.ServiceKey]bool, len(answer))
	for _, payload := range answer {
		entry, err := decodeService(payload)
		if err != nil {
			return nil, malformed(r, err)
		}
		if !seen[entry.Key] {
			seen[entry.Key] = true
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

// Service returns the virtual service with the given key, without its
// destinations. The error matches ErrNoService when there is none.
func (c *Client) Service(ctx context.Context, key ipvs.ServiceKey) (ipvs.ServiceEntry, error) {
	r := Request{Op: OpService, Key: key}
	payload, err := c.one(ctx, r)
	if err != nil {
		return ipvs.ServiceEntry{}, err
	}
	entry, err := decodeService(payload)
	if err != nil {
		return ipvs.ServiceEntry{}, malformed(r, err)
	}
	return entry, nil
}

// one carries out a request that is answered with one message.
func (c *Client) one(ctx context.Context, r Request) ([]byte, error) {
	answer, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(answer) != 1 {
		return nil, malformed(r, fmt.Errorf("%d messages instead of one", len(answer)))
	}
	return answer[0], nil
}

func malformed(r Request, err error) error {
	return &OpError{Op: r.Op, Object: r.Object(), Hint: "the kernel's answer is not understood", Err: err}
}

// Destinations returns the destinations of a virtual service in no particular
// order, none of them twice. The error matches ErrNoService when there is no such
// service. As for Services, the list is no snapshot.
func (c *Client) Destinations(ctx context.Context, key ipvs.ServiceKey) ([]ipvs.DestinationEntry, error) {
	r := Request{Op: OpDestinations, Key: key}
	answer, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(answer) == 0 { // the kernel answers so too when there is no service
		if _, err := c.Service(ctx, key); err != nil {
			return nil, err
		}
	}
	entries := make([]ipvs.DestinationEntry, 0, len(answer))
	seen := make(map[netip.AddrPort]bool, len(answer))
	for _, payload := range answer {
		entry, err := decodeDestination(key.Family, payload)
		if err != nil {
			return nil, malformed(r, err)
		}
		if !seen[entry.Addr] {
			seen[entry.Addr] = true
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

// Table returns all virtual services with their destinations, as the kernel holds
// them: nothing is validated, names and comments are not there. It is no snapshot
// of a table that is being written to, see Services.
func (c *Client) Table(ctx context.Context) (ipvs.Table, error) {
	entries, err := c.Services(ctx)
	if err != nil {
		return ipvs.Table{}, err
	}
	services := make([]ipvs.Service, 0, len(entries))
	for _, entry := range entries {
		destinations, err := c.Destinations(ctx, entry.Key)
		if errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrNoModule) {
			continue // deleted since
		}
		if err != nil {
			return ipvs.Table{}, err
		}
		s := entry.Service
		for _, d := range destinations {
			s.Destinations = append(s.Destinations, d.Destination)
		}
		services = append(services, s)
	}
	return ipvs.TableOf(services...), nil
}
