package vip

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestAnnouncements(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		start := h.now() - time.Hour
		own(h, k, time.Hour, addresses(vip4)...)
		time.Sleep(30 * time.Second)
		var times []string
		for _, op := range h.take("build", "cover", "add", "renew", "permit") {
			at, err := time.ParseDuration(op[strings.LastIndex(op, " ")+1:])
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, (at - start).String())
		}
		want := []string{"0s", "200ms", "400ms", "600ms", "800ms", "5.8s", "6s", "6.2s", "6.4s", "6.6s", "16.6s", "26.6s"}
		if fmt.Sprint(times) != fmt.Sprint(want) {
			t.Errorf("announced at %v, want %v", times, want)
		}

		a, mac := netip.MustParseAddr("10.9.0.100"), net.HardwareAddr{2, 0, 0, 0, 0, 99}
		h.heard(2, a, mac)
		h.heard(2, netip.MustParseAddr("10.9.0.101"), mac) // none of ours
		h.heard(2, a, h.links["eth0"].MAC)                 // our own echo
		h.heard(3, a, mac)                                 // another wire
		if got := h.take(); len(got) != 1 {
			t.Errorf("answer to a foreign announcement: %v", got)
		}
		for range 100 {
			h.heard(2, a, mac)
			time.Sleep(time.Millisecond)
		}
		if got := h.take(); len(got) > 1 {
			t.Errorf("100 foreign announcements in 0.1 s: %v", got)
		}
		if got := k.Status().ForeignAnnouncements; got != 101 {
			t.Errorf("%d foreign announcements, want 101", got)
		}
		k.Set(addresses(vip4), 0)
		h.take()
		h.heard(2, a, mac)
		time.Sleep(time.Second)
		if got := h.take(); len(got) != 0 || k.Status().ForeignAnnouncements != 101 {
			t.Errorf("a standby answers: %v", got)
		}
	})
}

func TestScheduleOfOne(t *testing.T) {
	timing := Announce{Count: 1, Interval: time.Second, Again: 2 * time.Second, Every: 3 * time.Second}
	for n, want := range map[int]time.Duration{1: 2 * time.Second, 2: 3 * time.Second, 3: 3 * time.Second} {
		if got := timing.after(n); got != want {
			t.Errorf("after %d: %v, want %v", n, got, want)
		}
	}
}
