package vip

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// claimRetry is how long the claimer waits after a failure.
const claimRetry = time.Second

// claimer writes the record of addresses, and looks at the routes before it does.
// Both may take long, on a sick disk or with a million routes, and the keeper must
// not wait. So addresses are claimed when they are heard of, long before this host
// becomes the owner; claimed means that they may be added, not that they are there.
type claimer struct {
	save    func(map[Address]bool) error
	routes  routes
	log     *slog.Logger
	pingC   chan struct{}
	changed func() // something below changed; must not block

	mu      sync.Mutex
	wanted  map[Address]bool // to be claimed; what is not in it is forgotten
	claimed map[Address]bool // on disk; never written to again
	refused map[Address]string
	failure string // why the record is not as wanted
}

func newClaimer(claimed map[Address]bool, save func(map[Address]bool) error, log *slog.Logger) *claimer {
	return &claimer{
		save: save, log: log, pingC: make(chan struct{}, 1), changed: func() {},
		wanted: claimed, claimed: claimed, refused: map[Address]string{},
	}
}

// set makes wanted what is to be claimed.
func (c *claimer) set(wanted map[Address]bool) {
	c.mu.Lock()
	same := maps.Equal(c.wanted, wanted)
	c.wanted = wanted
	c.mu.Unlock()
	if !same {
		c.ping()
	}
}

// now returns what is claimed, what must not be and why, and why the record is not
// as wanted.
func (c *claimer) now() (claimed map[Address]bool, refused map[Address]string, failure string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claimed, c.refused, c.failure
}

func (c *claimer) ping() {
	select {
	case c.pingC <- struct{}{}:
	default:
	}
}

// run claims until ctx is done.
func (c *claimer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.pingC:
		}
		if c.claim() == nil {
			continue
		}
		retry := time.NewTimer(claimRetry)
		select {
		case <-ctx.Done():
		case <-retry.C:
			c.ping()
		}
		retry.Stop()
	}
}

// claim makes the record as wanted, without what is the next hop of a route: a host
// that took its gateway's address would cut itself off.
func (c *claimer) claim() error {
	c.mu.Lock()
	wanted, before := c.wanted, c.claimed
	c.mu.Unlock()
	refused := map[Address]string{}
	hops, err := c.routes.NextHops()
	claims := map[Address]bool{}
	for a := range wanted {
		switch {
		case before[a]: // it may be on the host: forgetting it would leave it there
			claims[a] = true
		case err != nil:
			continue
		case !hops[a.Addr()]:
			claims[a] = true
		}
		if hops[a.Addr()] {
			refused[a] = "a route of this host leads through it"
		}
	}
	if !maps.Equal(claims, before) {
		if saved := c.save(claims); saved != nil {
			claims, err = before, saved
		}
	}
	c.mu.Lock()
	c.claimed, c.refused, c.failure = claims, refused, ""
	if err != nil {
		c.failure = err.Error()
	}
	c.mu.Unlock()
	if err != nil {
		c.log.Error("claim addresses", "error", err)
	}
	c.changed()
	return err
}
