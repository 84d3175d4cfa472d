package vip

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const through = "a route of this host leads through it"

// settle waits until a keeper has taken note of what it was told.
func settle() {
	synctest.Wait()
	time.Sleep(2 * routesGap)
	synctest.Wait()
}

// TestRouteThroughAVIP: the route comes when the address is long claimed.
func TestRouteThroughAVIP(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		all := addresses(vip4, vip6)
		k.Set(all, 0)
		settle()
		h.route("10.9.0.100")
		settle()
		if got := messages(k); got != vip4+": "+through {
			t.Errorf("a standby's errors: %s", got)
		}
		k.Set(all, h.now()+time.Minute)
		settle()
		if h.has(vip4) || !h.has(vip6) || messages(k) != vip4+": "+through {
			t.Errorf("ops %v, errors: %s", h.take("announce"), messages(k))
		}
		h.route()
		settle()
		if !h.has(vip4) || messages(k) != "" {
			t.Errorf("not taken without the route; errors: %s", messages(k))
		}
	})
}

// TestRouteThroughAnAddressOfOurs: it is the host's way to others now.
func TestRouteThroughAnAddressOfOurs(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		own(h, k, time.Minute, addresses(vip4, vip6)...)
		settle()
		h.route("10.9.0.100")
		settle()
		if h.has(vip4) || !h.has(vip6) || !k.Status().Owner || messages(k) != vip4+": "+through {
			t.Errorf("%+v", k.Status())
		}
	})
}

// TestNextProcessReadsRoutes though the addresses are in its record, and before it
// adds any.
func TestNextProcessReadsRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, dir, all := newHost(), t.TempDir(), addresses(vip4, vip6)
		if err := writeRecord(dir, claims(all)); err != nil {
			t.Fatal(err)
		}
		h.route("10.9.0.100")
		h.delay["hops"] = time.Second
		k, stop := h.keeper(t, dir)
		defer stop()
		k.Set(all, h.now()+time.Minute)
		settle()
		if h.has(vip4) || h.has(vip6) || !strings.Contains(messages(k), "the routes of this host are not known yet") {
			t.Errorf("before the routes are read: %+v", k.Status())
		}
		time.Sleep(time.Second)
		settle()
		if h.has(vip4) || !h.has(vip6) || messages(k) != vip4+": "+through {
			t.Errorf("%+v", k.Status())
		}
	})
}

// TestRoutesThatCannotBeRead: what is known of them stays so, and it is said.
func TestRoutesThatCannotBeRead(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		own(h, k, time.Hour, addresses(vip4)...)
		settle()
		h.mu.Lock()
		h.refuse["hops"] = errRefused
		h.mu.Unlock()
		h.route("10.9.0.100")
		settle()
		if !h.has(vip4) || messages(k) != "routes: refused" {
			t.Errorf("%+v", k.Status())
		}
		h.mu.Lock()
		delete(h.refuse, "hops")
		h.mu.Unlock()
		time.Sleep(routesRetry)
		settle()
		if h.has(vip4) || messages(k) != vip4+": "+through {
			t.Errorf("%+v", k.Status())
		}
	})
}

// TestBusyRoutes: a host with a million routes, which change all the time, has better
// to do than to read them; one that nobody tells of changes reads them all the same.
func TestBusyRoutes(t *testing.T) {
	for _, tc := range []struct {
		name  string
		takes time.Duration // to read them
		busy  bool
		most  int // in a minute
	}{
		{"many and busy", time.Second, true, 4},
		{"few and busy", 0, true, 601},
		{"quiet", 0, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(h *fakeHost, _ string) { h.delay["hops"] = tc.takes }, func(h *fakeHost, _ *Keeper) {
				time.Sleep(30 * time.Second)
				h.mu.Lock()
				before := h.readings
				h.mu.Unlock()
				for range 60 * 1000 {
					if tc.busy {
						h.reroute()
					}
					time.Sleep(time.Millisecond)
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				if n := h.readings - before; n < 1 || n > tc.most {
					t.Errorf("read %d times in a minute, want 1 to %d", n, tc.most)
				}
			})
		})
	}
}

// TestPromotionReadsNoRoutes: that is done long before.
func TestPromotionReadsNoRoutes(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		k.Set(addresses(vip4), 0)
		settle()
		h.mu.Lock()
		h.delay["hops"] = time.Hour
		h.mu.Unlock()
		h.reroute()
		k.Set(addresses(vip4), h.now()+time.Minute)
		synctest.Wait()
		if !h.open("10.9.0.100") || !h.has(vip4) {
			t.Errorf("%+v", k.Status())
		}
	})
}
