package kernel

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

const (
	// chunkSize is how many bytes of answers, some 200 destinations, are decoded at
	// once.
	chunkSize = 64 << 10
	chunkRoom = chunkSize + datagram // a chunk is handed on once it has chunkSize: few must grow
	chunks    = 3                    // one is being filled, one waits, one is being decoded
)

// Table returns all virtual services with their destinations, as the kernel holds
// them: nothing is validated, names and comments are not there. It is no snapshot
// of a table that is being written to, see Services.
//
// It has a socket of its own: other calls, edits too, wait for 32 KiB of a list at
// most, since the kernel works on one at a time, over however many sockets.
// Meanwhile the answers before are decoded, and the table is built of them.
func (c *Client) Table(ctx context.Context, opts ...TableOption) (ipvs.Table, error) {
	pace := &pace{began: time.Now()}
	for _, opt := range opts {
		opt(pace)
	}
	services, err := readServices(ctx, c.reading, pace)
	if err != nil {
		return ipvs.Table{}, err
	}
	services = unique(services, func(s *ipvs.Service) ipvs.ServiceKey { return s.Key })
	full, empty := make(chan *chunk, chunks), make(chan *chunk, chunks) // sending never blocks
	for range chunks {
		empty <- &chunk{}
	}
	var table ipvs.Builder
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(full)
		return collect(ctx, c.reading, pace, services, full, empty)
	})
	group.Go(func() error {
		var room []ipvs.Destination
		for u := range full {
			var err error
			if room, err = u.decode(room, &table); err != nil {
				return err
			}
			u.reset()
			empty <- u
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return ipvs.Table{}, err
	}
	return table.Table(), nil
}

// readServices returns the services without destinations.
func readServices(ctx context.Context, l *link, pace *pace) ([]*ipvs.Service, error) {
	var services []*ipvs.Service
	r := Request{Op: OpServices}
	err := list(ctx, l, r, func() { services = services[:0] }, func(payload []byte) error {
		var raw rawService
		s, err := raw.decode(payload)
		if err != nil {
			return malformed(r, err)
		}
		services = append(services, &s)
		return pace.read(ctx, len(payload))
	})
	return services, err
}

// collect asks for the destinations of services and hands the answers on, undecoded,
// with those services that are still there.
func collect(ctx context.Context, l *link, pace *pace, services []*ipvs.Service, full chan<- *chunk, empty <-chan *chunk) error {
	var u *chunk
	for i, s := range services {
		if u == nil {
			select {
			case u = <-empty:
			case <-ctx.Done(): // the decoder has failed, or the caller gave up
				return opError(Request{Op: OpDestinations, Key: s.Key}, ctx.Err())
			}
			u.data = slices.Grow(u.data, chunkRoom)
		}
		there, err := gather(ctx, l, s.Key, u)
		if err != nil {
			return err
		}
		if there {
			u.services, u.ends = append(u.services, s), append(u.ends, len(u.data))
		}
		if size := len(u.data); size >= chunkSize || i == len(services)-1 {
			full <- u
			u = nil
			if err := pace.read(ctx, size); err != nil { // while that is decoded
				return opError(Request{Op: OpDestinations, Key: s.Key}, err)
			}
		}
	}
	return nil
}

// gather appends the destinations of a service to u, and reports whether there is
// such a service.
func gather(ctx context.Context, l *link, key ipvs.ServiceKey, u *chunk) (there bool, err error) {
	start := len(u.data)
	err = list(ctx, l, Request{Op: OpDestinations, Key: key}, func() { u.data = u.data[:start] }, func(payload []byte) error {
		u.data = append(u.data, payload...)
		return nil
	})
	if err == nil && len(u.data) == start { // the kernel answers so too when there is no service
		_, err = readOne(ctx, l, Request{Op: OpService, Key: key}, decodeService)
	}
	if errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrNoModule) {
		return false, nil
	}
	return err == nil, err
}

// chunk is destinations of some services, as the kernel sent them, one behind the
// other.
type chunk struct {
	services []*ipvs.Service
	ends     []int // of the destinations of each, in data
	data     []byte
}

func (u *chunk) reset() { u.services, u.ends, u.data = u.services[:0], u.ends[:0], u.data[:0] }

// decode gives the services their destinations, in order, none of them twice, and
// adds them to table. Its scratch space is room, which it returns, perhaps larger:
// what a service keeps is as long as its list, and no part of something longer, which
// it would keep alive in later tables that share the service.
func (u *chunk) decode(room []ipvs.Destination, table *ipvs.Builder) ([]ipvs.Destination, error) {
	start := 0
	for i, s := range u.services {
		list := room[:0]
		err := walk(u.data[start:u.ends[i]], func(typ uint16, data []byte) error {
			if typ != attrDest {
				return nil
			}
			var raw rawDestination
			d, err := raw.decode(s.Key.Family, data)
			list = append(list, d)
			return err
		})
		if err != nil {
			return nil, malformed(Request{Op: OpDestinations, Key: s.Key}, err)
		}
		start = u.ends[i]
		slices.Reverse(list) // the newest come first: now they are in order but for exceptions
		slices.SortFunc(list, func(a, b ipvs.Destination) int { return a.Addr.Compare(b.Addr) })
		list = slices.CompactFunc(list, func(a, b ipvs.Destination) bool { return a.Addr == b.Addr })
		if len(list) > 0 {
			s.Destinations = slices.Clone(list)
		}
		table.Set(s)
		room = list
	}
	return room, nil
}
