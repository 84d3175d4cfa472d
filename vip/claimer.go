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

// claimer writes the record of addresses. That may take long, on a sick disk, and the
// keeper must not wait. So addresses are claimed when they are heard of, long before
// this host becomes the owner; claimed means that they are ours if they are there.
type claimer struct {
	save    func(map[Address]bool) error
	log     *slog.Logger
	pingC   chan struct{}
	changed func() // something below changed; must not block

	mu      sync.Mutex
	wanted  map[Address]bool // to be claimed; what is not in it is forgotten
	claimed map[Address]bool // on disk; never written to again
	failure string           // why the record is not as wanted
}

func newClaimer(claimed map[Address]bool, save func(map[Address]bool) error, log *slog.Logger) *claimer {
	return &claimer{
		save: save, log: log, pingC: make(chan struct{}, 1), changed: func() {},
		wanted: claimed, claimed: claimed,
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

// now returns what is claimed, and why the record is not as wanted.
func (c *claimer) now() (claimed map[Address]bool, failure string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claimed, c.failure
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
		if !sleep(ctx, claimRetry, nil) {
			return
		}
		c.ping()
	}
}

// claim makes the record as wanted.
func (c *claimer) claim() error {
	c.mu.Lock()
	claims, before := c.wanted, c.claimed
	c.mu.Unlock()
	var err error
	if !maps.Equal(claims, before) {
		if err = c.save(claims); err != nil {
			claims = before
		}
	}
	c.mu.Lock()
	c.claimed, c.failure = claims, ""
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
