package kernel

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// For how many destinations room is made at once, and how few make it too little.
const (
	roomMade = 256
	roomLeft = 16
)

// Table returns all virtual services with their destinations, as the kernel holds
// them: nothing is validated, names and comments are not there. It is no snapshot
// of a table that is being written to, see Services.
//
// Other calls, edits too, may come between the lists that it reads: one for the
// services and one for the destinations of each. More sockets would not help: the
// kernel works on one list at a time.
func (c *Client) Table(ctx context.Context) (ipvs.Table, error) {
	services, err := read(ctx, c.link, Request{Op: OpServices}, []ipvs.Service{}, func(payload []byte) (ipvs.Service, error) {
		var raw rawService
		return raw.decode(payload)
	})
	if err != nil {
		return ipvs.Table{}, err
	}
	services = unique(services, func(s ipvs.Service) ipvs.ServiceKey { return s.Key })
	there := services[:0]
	var room []ipvs.Destination
	for _, s := range services {
		if cap(room) < roomLeft {
			room = make([]ipvs.Destination, 0, roomMade)
		}
		s.Destinations, err = c.destinations(ctx, s.Key, room)
		if errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrNoModule) {
			continue // deleted since
		}
		if err != nil {
			return ipvs.Table{}, err
		}
		room = s.Destinations[len(s.Destinations):]
		there = append(there, s)
	}
	return ipvs.TableOf(there...), nil
}

// destinations returns the destinations of a service in order, none of them twice,
// in room when that is large enough.
func (c *Client) destinations(ctx context.Context, key ipvs.ServiceKey, room []ipvs.Destination) ([]ipvs.Destination, error) {
	list, err := read(ctx, c.link, Request{Op: OpDestinations, Key: key}, room, func(payload []byte) (ipvs.Destination, error) {
		var raw rawDestination
		return raw.decode(key.Family, payload)
	})
	if err == nil && len(list) == 0 { // the kernel answers so too when there is no service
		_, err = c.Service(ctx, key)
	}
	if err != nil {
		return nil, err
	}
	slices.Reverse(list) // the newest come first: now they are in order but for exceptions
	slices.SortFunc(list, func(a, b ipvs.Destination) int { return a.Addr.Compare(b.Addr) })
	return slices.CompactFunc(list, func(a, b ipvs.Destination) bool { return a.Addr == b.Addr }), nil
}
