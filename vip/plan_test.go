package vip

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestObstacles(t *testing.T) {
	for _, tc := range []struct {
		name    string
		vip     string
		prepare func(h *fakeHost)
		message string
		down    bool
	}{
		{"no interface", "10.9.0.100/32@eth7", nil, "there is no interface eth7", true},
		{"switched off", vip4, func(h *fakeHost) { h.links["eth0"] = link{Name: "eth0", Index: 2} }, "switched off", true},
		{"no carrier", vip4, func(h *fakeHost) { h.links["eth0"] = link{Name: "eth0", Index: 2, Up: true} }, "no carrier", true},
		{"not in a network of the interface", "10.8.0.100/32@eth0", nil, "no network of interface eth0 contains it", false},
		{"on another interface", "10.9.0.100/32@eth1", nil, "no network of interface eth1 contains it", false},
		{"the host's own", "10.9.0.11/32@eth0", nil, "as 10.9.0.11/24 on eth0", false},
		{"on loopback", vip4, func(h *fakeHost) {
			h.links["lo"] = link{Name: "lo", Index: 1, Up: true, Carrier: true}
			h.byHand("10.9.0.100/32@lo")
		}, "as 10.9.0.100/32 on lo", false},
		{"the gateway's", "10.9.0.1/32@eth0", func(h *fakeHost) { h.route("10.9.0.1") }, "a route of this host leads through it", false},
		{"routes not known", vip4, func(h *fakeHost) { h.refuse["hops"] = errRefused }, "the routes of this host are not known", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(h *fakeHost, _ string) {
				if tc.prepare != nil {
					tc.prepare(h)
				}
			}, func(h *fakeHost, k *Keeper) {
				k.Set(addresses(tc.vip), 0)
				synctest.Wait()
				time.Sleep(2 * lookGap)
				synctest.Wait()
				if !strings.Contains(messages(k), tc.message) {
					t.Errorf("a standby's errors: %s", messages(k))
				}
				_, name, _ := strings.Cut(tc.vip, "@")
				if down := k.Status().Down; slices.Contains(down, name) != tc.down || len(down) > 1 {
					t.Errorf("interfaces that are down: %v", down)
				}
				k.Set(addresses(tc.vip), h.now()+time.Minute)
				time.Sleep(3 * time.Second)
				if ops := h.take("announce", "build", "cover", "permit"); len(ops) > 0 || !strings.Contains(messages(k), tc.message) {
					t.Errorf("an owner did %v; errors: %s", ops, messages(k))
				}
			})
		})
	}
}

// What the host had before it became a VIP may be how the host is reached; what came
// later is a mistake that must not answer.
func TestWhatTheFenceCovers(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		k.Set(addresses(vip4, "10.9.0.11/32@eth0"), 0)
		synctest.Wait()
		h.byHand(vip4)
		h.look()
		time.Sleep(2 * lookGap)
		if h.open("10.9.0.100") {
			t.Error("a VIP that was added by hand answers")
		}
		if !h.open("10.9.0.11") {
			t.Error("the host's own address is cut off")
		}
		k.Set(addresses("10.9.0.11/32@eth0"), 0)
		time.Sleep(2 * lookGap)
		if !h.open("10.9.0.100") || !h.has(vip4) {
			t.Error("an address that is no VIP any more is still fenced, or was removed")
		}
	})
}
