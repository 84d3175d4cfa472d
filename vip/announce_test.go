package vip

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
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

		if !h.hears {
			t.Error("an owner does not hear of others")
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
		if got := h.take(); len(got) != 0 || k.Status().ForeignAnnouncements != 101 || h.hears {
			t.Errorf("a standby answers: %v; it hears: %t", got, h.hears)
		}
	})
}

// Hundreds of addresses are announced in bursts, each once before any again.
func TestAnnouncementsArePaced(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		const count = 200
		var all []Address
		for i := range count {
			all = append(all, address(fmt.Sprintf("10.9.0.%d/32@eth0", 20+i)))
		}
		own(h, k, time.Hour, all...)
		time.Sleep(20 * time.Second)
		said := map[string]int{}
		bursts := map[string]int{}
		most, total := 0, 0
		for _, op := range h.take("build", "cover", "add", "renew", "permit") {
			word := strings.Fields(op) // announce ADDRESS at TIME
			said[word[1]]++
			bursts[word[3]]++
			most, total = max(most, bursts[word[3]]), total+1
			if total == count && len(said) != count {
				t.Errorf("the first %d announcements were of %d addresses", count, len(said))
			}
		}
		if most != maxBurst || total != 11*count {
			t.Errorf("%d announcements, up to %d at once; want %d, %d", total, most, 11*count, maxBurst)
		}
		var times []time.Duration
		for at := range bursts {
			d, err := time.ParseDuration(at)
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, d)
		}
		slices.Sort(times)
		for i := range times[1:] {
			if full := bursts[times[i].String()] == maxBurst; full && times[i+1]-times[i] < burstPause {
				t.Errorf("bursts at %s and %s", times[i], times[i+1])
			}
		}
	})
}

// TestAddressesBeforeAnnouncements: what is announced while the kernel works does not
// hold up the next addresses.
func TestAddressesBeforeAnnouncements(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		var all []Address
		for i := range 3 * maxBatch {
			all = append(all, address(fmt.Sprintf("10.9.0.%d/32@eth0", 20+i)))
		}
		h.mu.Lock()
		h.delay["announce"] = time.Millisecond
		h.mu.Unlock()
		k.Set(all, 0)
		synctest.Wait()
		h.take()
		k.Set(all, h.now()+time.Hour)
		time.Sleep(time.Second)
		added, announced := 0, 0
		for _, op := range h.take("permit") {
			switch word, _, _ := strings.Cut(op, " "); {
			case word == "add":
				added++
			case added < len(all):
				announced++
			}
		}
		if added != len(all) || announced > 2 {
			t.Errorf("%d addresses were added, and %d announced before the last", added, announced)
		}
	})
}

// TestAnnouncementsWhileTheKernelWorks go on, when the pause after those before ends.
func TestAnnouncementsWhileTheKernelWorks(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		var all []Address
		for i := range 3 * maxBatch {
			all = append(all, address(fmt.Sprintf("10.9.0.%d/32@eth0", 20+i)))
		}
		const each = 100 * time.Microsecond // a batch takes 6.4 ms
		h.mu.Lock()
		h.delay["add"] = each
		h.mu.Unlock()
		k.Set(all, 0)
		synctest.Wait()
		h.take()
		k.Set(all, h.now()+time.Hour)
		time.Sleep((3*maxBatch - 1) * each)
		announced, added := 0, 0
		for _, op := range h.take() {
			switch word, _, _ := strings.Cut(op, " "); word {
			case "announce":
				announced++
			case "add":
				added++
			}
		}
		if announced != 2*maxBatch || added >= len(all) {
			t.Errorf("of the first %d addresses %d are announced before all %d are added", 2*maxBatch, announced, added)
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
