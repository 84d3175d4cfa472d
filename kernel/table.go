package kernel

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// laneWorth is how many services make another socket worth its while.
const laneWorth = 32

// Table returns all virtual services with their destinations, as the kernel holds
// them: nothing is validated, names and comments are not there. It is no snapshot
// of a table that is being written to, see Services.
func (c *Client) Table(ctx context.Context) (ipvs.Table, error) {
	services, err := read(ctx, c.link, Request{Op: OpServices}, func(payload []byte) (ipvs.Service, error) {
		var raw rawService
		return raw.decode(payload)
	})
	if err != nil {
		return ipvs.Table{}, err
	}
	services = unique(services, func(s ipvs.Service) ipvs.ServiceKey { return s.Key })
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range c.lanes[:min(len(c.lanes), 1+len(services)/laneWorth)] {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(services) {
					return nil
				}
				if err := readDestinations(ctx, l, &services[i]); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return ipvs.Table{}, err
	}
	there := services[:0]
	for _, s := range services {
		if s.Key != (ipvs.ServiceKey{}) {
			there = append(there, s)
		}
	}
	return ipvs.TableOf(there...), nil
}

// readDestinations reads those of s, none of them twice. When s is not there any
// more it becomes the zero value.
func readDestinations(ctx context.Context, l *link, s *ipvs.Service) error {
	list, err := read(ctx, l, Request{Op: OpDestinations, Key: s.Key}, func(payload []byte) (ipvs.Destination, error) {
		var raw rawDestination
		return raw.decode(s.Key.Family, payload)
	})
	if err == nil && len(list) == 0 { // the kernel answers so too when there is no service
		_, err = readOne(ctx, l, Request{Op: OpService, Key: s.Key}, decodeService)
	}
	if errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrNoModule) {
		*s = ipvs.Service{}
		return nil
	}
	slices.SortFunc(list, func(a, b ipvs.Destination) int { return a.Addr.Compare(b.Addr) })
	s.Destinations = slices.CompactFunc(list, func(a, b ipvs.Destination) bool { return a.Addr == b.Addr })
	return err
}
