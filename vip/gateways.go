package vip

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"
)

const (
	// routesEvery is the longest time between two readings of the routes. The kernel
	// tells nobody of routes that go with an interface or an address.
	routesEvery = time.Minute
	// routesGap is the shortest, for hosts on which routes come and go all the time.
	routesGap = 100 * time.Millisecond
	// routesShare bounds the part of the time that is spent on reading, to one in so
	// many: a million routes take seconds.
	routesShare = 20
	// routesRetry is the time after a reading that failed.
	routesRetry = time.Second
)

// gateways knows the next hops of this host's routes: a host that took its gateway's
// address would cut itself off. It reads them all at the start and when a route has
// changed. That may take long, and the keeper must not wait.
type gateways struct {
	routes  routes
	log     *slog.Logger
	pingC   chan struct{}
	changed func() // something below changed; must not block

	mu   sync.Mutex
	hops map[netip.Addr]bool // nil: not read yet; never written to again
	err  error               // why hops are not up to date
}

func newGateways(log *slog.Logger) *gateways {
	return &gateways{log: log, pingC: make(chan struct{}, 1), changed: func() {}}
}

// now returns the next hops, nil when they were never read, and why they are not up
// to date.
func (g *gateways) now() (map[netip.Addr]bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hops, g.err
}

// ping has the routes read soon.
func (g *gateways) ping() {
	select {
	case g.pingC <- struct{}{}:
	default:
	}
}

// run reads until ctx is done.
func (g *gateways) run(ctx context.Context) {
	for {
		began := time.Now()
		err := g.read(ctx)
		gap, next := max(routesGap, (routesShare-1)*time.Since(began)), routesEvery
		if err != nil {
			next = routesRetry
		}
		if !sleep(ctx, gap, nil) || !sleep(ctx, next-gap, g.pingC) {
			return
		}
	}
}

// read reads the routes once. What was known stays known when that fails.
func (g *gateways) read(ctx context.Context) error {
	hops, err := g.routes.NextHops(ctx)
	if ctx.Err() != nil {
		return nil
	}
	g.mu.Lock()
	before, failed := g.hops, g.err
	g.err = err
	if err == nil {
		g.hops = hops
	}
	g.mu.Unlock()
	if err != nil {
		g.log.Error("read the routes of this host", "error", err)
	}
	// On a host whose routes change all the time their next hops hardly ever do.
	if err != nil || failed != nil || before == nil || !maps.Equal(before, hops) {
		g.changed()
	}
	return err
}

// sleep waits for d, or until early has something, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-early:
	}
	return true
}
