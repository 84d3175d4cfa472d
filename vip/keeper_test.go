package vip

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	vip4 = "10.9.0.100/32@eth0"
	vip6 = "2001:db8::100/128@eth0"
)

// bubble runs a test with a host and a keeper, in the time of synctest.
func bubble(t *testing.T, prepare func(h *fakeHost, dir string), test func(h *fakeHost, k *Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h, dir := newHost(), t.TempDir()
		if prepare != nil {
			prepare(h, dir)
		}
		k, stop := h.keeper(t, dir)
		defer stop()
		test(h, k)
	})
}

// own makes the keeper an owner of all for d, and waits until it has done what it can.
func own(h *fakeHost, k *Keeper, d time.Duration, all ...Address) {
	k.Set(all, 0) // as a standby
	synctest.Wait()
	k.Set(all, h.now()+d)
	synctest.Wait()
}

func messages(k *Keeper) string {
	var all []string
	for _, e := range k.Status().Errors {
		all = append(all, e.Object+": "+e.Message)
	}
	return strings.Join(all, "\n")
}

func TestOrder(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		h.expect(t, "build []")
		all := addresses(vip4, vip6)
		k.Set(all, 0)
		h.expect(t, "cover [10.9.0.100 2001:db8::100] not []")
		if h.open("10.9.0.100") {
			t.Error("a standby's fence is open")
		}
		time.Sleep(2 * lookGap)
		k.Set(all, h.now()+300*time.Millisecond)
		h.expect(t, "permit 300ms", "add "+vip6, "add "+vip4) // the kernel takes longer for IPv6
		if s := k.Status(); !s.Owner || s.Fence != FenceOpen || s.HeldCount != 2 || s.ErrorCount != 0 {
			t.Errorf("owner: %+v", s)
		}
		time.Sleep(50 * time.Millisecond)
		k.Set(all, h.now()+300*time.Millisecond)
		h.expect(t) // the permit lasts long enough
		time.Sleep(50 * time.Millisecond)
		k.Set(all, h.now()+300*time.Millisecond)
		h.expect(t, "permit 300ms")
		k.Set(all, h.now()+300*time.Millisecond)
		h.expect(t) // the same value
		k.Set(all, 0)
		h.expect(t, "shut", "remove "+vip4, "remove "+vip6)
		if s := k.Status(); s.Owner || s.Fence != FenceShut || s.HeldCount != 0 {
			t.Errorf("standby: %+v", s)
		}
	})
}

// An owner to be knows the host from a moment ago: it looks when the fence is open. It
// does look first when something may have changed.
func TestTakesOverWithoutALook(t *testing.T) {
	for _, hinted := range []bool{false, true} {
		t.Run(fmt.Sprintf("hinted %t", hinted), func(t *testing.T) {
			bubble(t, nil, func(h *fakeHost, k *Keeper) {
				all := addresses(vip4)
				k.Set(all, 0)
				synctest.Wait()
				time.Sleep(lookEvery / 2)
				synctest.Wait()
				h.mu.Lock()
				h.delay["look"] = 100 * time.Millisecond
				h.mu.Unlock()
				if hinted {
					k.mu.Lock()
					k.hint = true
					k.mu.Unlock()
				}
				k.Set(all, h.now()+time.Minute)
				synctest.Wait()
				if open := h.open("10.9.0.100") && h.has(vip4); open == hinted {
					t.Errorf("open %t before the look", open)
				}
				time.Sleep(time.Second)
				if !h.open("10.9.0.100") || k.Status().ErrorCount != 0 {
					t.Errorf("%+v", k.Status())
				}
			})
		})
	}
}

// An owner to be has the addresses before the lease, behind a shut fence.
func TestPrepare(t *testing.T) {
	t.Run("then own", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			all := addresses(vip4, vip6)
			k.Set(all, 0)
			time.Sleep(2 * lookGap)
			h.take()
			k.Prepare(h.now() + 300*time.Millisecond)
			if ops := h.take(); !slices.Equal(ops, []string{"add " + vip6, "add " + vip4}) {
				t.Errorf("ops %v", ops)
			}
			if s := k.Status(); !s.Prepared || s.MayServe() || s.Fence != FenceShut || h.open("10.9.0.100") {
				t.Errorf("prepared: %+v", s)
			}
			h.mu.Lock()
			h.delay["look"] = 50 * time.Millisecond
			h.mu.Unlock()
			h.look() // at its own addresses: not now
			time.Sleep(100 * time.Millisecond)
			k.Set(all, h.now()+300*time.Millisecond)
			h.expect(t, "permit 300ms")
			time.Sleep(60 * time.Millisecond)
			h.take()
			if s := k.Status(); s.Prepared || !s.Owner || s.HeldCount != 2 {
				t.Errorf("owner: %+v", s)
			}
			k.Set(all, 0) // before the time that it was prepared for
			h.expect(t, "shut", "remove "+vip4, "remove "+vip6)
			time.Sleep(time.Second)
			h.expect(t)
		})
	})
	t.Run("in vain", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			k.Set(addresses(vip4), 0)
			time.Sleep(2 * lookGap)
			h.take()
			k.Prepare(h.now() + 300*time.Millisecond)
			time.Sleep(301 * time.Millisecond)
			h.expect(t, "add "+vip4, "remove "+vip4)
			if s := k.Status(); s.Prepared || s.ErrorCount != 0 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("the lease comes meanwhile", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			var all []Address
			for i := range 2 * maxBatch {
				all = append(all, address(fmt.Sprintf("10.9.0.%d/32@eth0", 20+i)))
			}
			k.Set(all, 0)
			time.Sleep(2 * lookGap)
			h.take()
			h.mu.Lock()
			h.delay["add"] = time.Millisecond
			h.mu.Unlock()
			k.Prepare(h.now() + 300*time.Millisecond)
			time.Sleep(time.Millisecond)
			k.Set(all, h.now()+300*time.Millisecond)
			time.Sleep(3 * maxBatch * time.Millisecond)
			if at := slices.IndexFunc(h.take(), func(op string) bool { return strings.HasPrefix(op, "permit") }); at != maxBatch {
				t.Errorf("the fence was opened after %d addresses, not %d", at, maxBatch)
			}
			if s := k.Status(); !s.Owner || s.HeldCount != len(all) {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("somebody removes the fence", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			k.Set(addresses(vip4), 0)
			time.Sleep(2 * lookGap)
			h.take()
			h.mu.Lock()
			h.delay["add"] = 10 * time.Millisecond
			h.mu.Unlock()
			k.Prepare(h.now() + 15*time.Millisecond)
			time.Sleep(5 * time.Millisecond)
			h.flush()
			time.Sleep(5 * time.Millisecond)
			h.expect(t, "add "+vip4, "remove "+vip4, "build [10.9.0.100]")
		})
	})
	t.Run("somebody removed the fence", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			k.Set(addresses(vip4), 0)
			time.Sleep(2 * lookGap)
			h.take()
			h.flush()
			k.Prepare(h.now() + 300*time.Millisecond)
			h.expect(t, "build [10.9.0.100]")
			if s := k.Status(); !s.Prepared || s.HeldCount != 0 || s.MayServe() {
				t.Errorf("somebody may wait for what is not to come: %+v", s)
			}
			time.Sleep(doubt)
			h.take()
			k.Prepare(h.now() + 300*time.Millisecond)
			h.expect(t, "add "+vip4)
		})
	})
	t.Run("somebody removes the fence when all is there", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			k.Set(addresses(vip4), 0)
			time.Sleep(2 * lookGap)
			k.Prepare(h.now() + 300*time.Millisecond)
			time.Sleep(5 * lookGap)
			h.take()
			h.flush()
			time.Sleep(checkGap)
			h.expect(t, "remove "+vip4, "build [10.9.0.100]")
		})
	})
	t.Run("without a fence", func(t *testing.T) {
		bubble(t, func(h *fakeHost, _ string) { h.fenceless = true }, func(h *fakeHost, k *Keeper) {
			k.Set(addresses(vip4), 0)
			synctest.Wait()
			h.take()
			k.Prepare(h.now() + 300*time.Millisecond)
			h.expect(t)
		})
	})
}

// Whoever waits for the fence does not wait for hundreds of addresses.
func TestShutIsSaidBeforeAddressesGo(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		all := addresses(vip4)
		own(h, k, time.Hour, all...)
		h.mu.Lock()
		h.delay["remove"] = time.Second
		h.mu.Unlock()
		k.Set(all, 0)
		synctest.Wait()
		if s := k.Status(); s.Owner || s.Fence != FenceShut || s.HeldCount != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Second)
		if s := k.Status(); s.HeldCount != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestEndsWithoutAnotherSet(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		own(h, k, 300*time.Millisecond, addresses(vip4)...)
		h.take()
		time.Sleep(300*time.Millisecond - time.Nanosecond)
		if !h.open("10.9.0.100") {
			t.Error("the fence is shut before the lease ends")
		}
		time.Sleep(time.Nanosecond)
		if h.open("10.9.0.100") {
			t.Error("the fence is open after the lease has ended")
		}
		h.expect(t, "shut", "remove "+vip4)
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		k, stop := h.keeper(t, t.TempDir())
		own(h, k, time.Minute, addresses(vip4)...)
		h.take()
		stop()
		h.expect(t, "shut", "remove "+vip4)
		if h.covered == nil {
			t.Error("the fence is gone")
		}
	})
}

func TestLateness(t *testing.T) {
	for _, tc := range []struct {
		name  string
		delay time.Duration // from asking for a permit to having it
		ops   []string      // until one is in time
	}{
		{"quick", time.Millisecond, []string{"permit 300ms"}},
		{"slow: what it took is taken off", 10 * time.Millisecond, []string{"permit 300ms", "permit 270ms"}},
		{"half of the lease", 150 * time.Millisecond, []string{"permit 300ms", "permit 100ms", "shut"}},
		{"longer than the lease", 400 * time.Millisecond, []string{"permit 300ms", "shut"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, nil, func(h *fakeHost, k *Keeper) {
				k.Set(addresses(vip4), 0)
				synctest.Wait()
				time.Sleep(2 * lookGap)
				h.take()
				h.delay["permit"] = tc.delay
				until := h.now() + 300*time.Millisecond
				k.Set(addresses(vip4), until)
				time.Sleep(450 * time.Millisecond)
				if got := h.take("announce", "add", "remove"); fmt.Sprint(got[:min(len(got), len(tc.ops))]) != fmt.Sprint(tc.ops) {
					t.Errorf("ops %v, want %v first", got, tc.ops)
				}
				if h.open("10.9.0.100") || h.has(vip4) {
					t.Error("the fence is open, or the address there, after the lease")
				}
			})
		})
	}
}

// The kernel's lock around interfaces and addresses is held by somebody else.
func TestSlowNetwork(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		all := addresses(vip4)
		own(h, k, 300*time.Millisecond, all...)
		h.mu.Lock()
		h.delay["look"] = time.Hour
		h.mu.Unlock()
		for range 100 {
			k.Set(all, h.now()+300*time.Millisecond)
			time.Sleep(100 * time.Millisecond)
			if !h.open("10.9.0.100") {
				t.Fatal("the permit was not renewed")
			}
		}
		k.Set(all, 0)
		synctest.Wait()
		if h.open("10.9.0.100") {
			t.Error("the fence is not shut while the network is slow")
		}
		h.mu.Lock()
		delete(h.delay, "look")
		h.mu.Unlock()
		time.Sleep(time.Hour)
		if h.has(vip4) {
			t.Error("the address is there still")
		}
	})
}

func TestFenceComesBeforeAddresses(t *testing.T) {
	bubble(t, func(h *fakeHost, _ string) { h.refuse["build"] = errRefused }, func(h *fakeHost, k *Keeper) {
		own(h, k, time.Minute, addresses(vip4)...)
		if h.has(vip4) || k.Status().Owner {
			t.Errorf("owner without a fence: %+v", k.Status())
		}
		if !strings.Contains(messages(k), "fence: refused") {
			t.Errorf("errors: %s", messages(k))
		}
		h.mu.Lock()
		delete(h.refuse, "build")
		h.mu.Unlock()
		time.Sleep(lookRetry + 2*lookGap) // the fence, the record, the address
		synctest.Wait()
		if !h.has(vip4) || !k.Status().Owner || k.Status().ErrorCount != 0 {
			t.Errorf("no owner once the kernel takes the fence: %+v", k.Status())
		}
	})
}

// TestFenceOffIsSaidOnceItIs: a former process may have left one, which stays shut.
func TestFenceOffIsSaidOnceItIs(t *testing.T) {
	bubble(t, func(h *fakeHost, _ string) { h.fenceless, h.refuse["build"] = true, errRefused }, func(h *fakeHost, k *Keeper) {
		own(h, k, time.Minute, addresses(vip4)...)
		if s := k.Status(); s.Owner || s.Fence != FenceUnknown || !strings.Contains(messages(k), "fence: refused") {
			t.Errorf("%+v", s)
		}
		h.mu.Lock()
		delete(h.refuse, "build")
		h.mu.Unlock()
		time.Sleep(lookRetry + 2*lookGap)
		synctest.Wait()
		if s := k.Status(); !s.Owner || s.Fence != FenceOff || s.ErrorCount != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRepairs(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		all := addresses(vip4, vip6)
		own(h, k, time.Hour, all...)
		time.Sleep(2 * lookGap)
		h.take()
		h.mu.Lock()
		delete(h.addresses, all[0])
		h.mu.Unlock()
		h.look()
		time.Sleep(lookGap)
		h.expect(t, "add "+vip4)

		h.flush()
		time.Sleep(lookEvery)
		got := h.take("announce", "renew")
		if len(got) != 2 || got[0] != "build [10.9.0.100 2001:db8::100]" || !strings.HasPrefix(got[1], "permit 59m5") {
			t.Errorf("after the fence was removed: %v", got)
		}
		if s := k.Status(); s.AddressesRepaired != 1 || s.FenceRebuilt != 1 || !s.Owner {
			t.Errorf("%+v, want one repair of each", s)
		}
	})
}

// TestEndsEarlyWithoutAFence: without a fence that can be relied on, only the agent keeps an
// owner from serving on, and the addresses go before the lease ends.
func TestEndsEarlyWithoutAFence(t *testing.T) {
	const lease = 300 * time.Millisecond
	gone := func(t *testing.T, h *fakeHost, k *Keeper) {
		t.Helper()
		synctest.Wait()
		if s := k.Status(); h.has(vip4) || s.MayServe() || s.FenceRebuilt != 1 {
			t.Errorf("has the address: %t; %+v, want no owner and the fence rebuilt once", h.has(vip4), s)
		}
	}
	stillOwner := func(t *testing.T, k *Keeper) {
		t.Helper()
		synctest.Wait()
		if s := k.Status(); !s.Owner || s.FenceRebuilt != 1 {
			t.Errorf("%+v, want an owner and the fence rebuilt once", s)
		}
	}
	addressFirst := func(t *testing.T, ops []string) {
		t.Helper()
		if want := []string{"remove " + vip4, "build [10.9.0.100]"}; !slices.Equal(ops, want) {
			t.Errorf("%q, want %q", ops, want)
		}
	}
	t.Run("just removed", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			own(h, k, lease, addresses(vip4)...)
			time.Sleep(lease - 2*early)
			h.take()
			h.flush()
			time.Sleep(early)
			gone(t, h, k)
			addressFirst(t, h.take("announce"))
			h.look()
			time.Sleep(early / 2)
			h.expect(t) // it does not take the same lease again
			k.Set(addresses(vip4), h.now()+lease)
			synctest.Wait()
			if !h.has(vip4) || !h.open("10.9.0.100") || !k.Status().Owner {
				t.Errorf("a renewal makes no owner: %+v", k.Status())
			}
		})
	})
	// rebuilt has the fence of an owner removed, and renews the lease as often as this.
	rebuilt := func(t *testing.T, h *fakeHost, k *Keeper, renewals int) {
		t.Helper()
		all := addresses(vip4)
		own(h, k, lease, all...)
		h.flush()
		for range renewals {
			time.Sleep(lease / 3)
			k.Set(all, h.now()+lease)
		}
		stillOwner(t, k)
	}
	t.Run("removed and rebuilt before", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			rebuilt(t, h, k, 10)
			time.Sleep(lease - early)
			gone(t, h, k)
		})
	})
	t.Run("long ago", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			rebuilt(t, h, k, 110)
			time.Sleep(lease - time.Nanosecond)
			stillOwner(t, k)
		})
	})
	t.Run("at the end itself", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			own(h, k, lease, addresses(vip4)...)
			time.Sleep(lease - earlyGap/2)
			h.take()
			h.flush()
			time.Sleep(earlyGap / 2)
			gone(t, h, k)
			addressFirst(t, h.take("announce", "shut"))
		})
	})
	t.Run("after the first look", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			own(h, k, lease, addresses(vip4)...)
			time.Sleep(lease - early + earlyGap/2)
			h.take()
			h.flush()
			time.Sleep(earlyGap / 2)
			gone(t, h, k)
			addressFirst(t, h.take("announce"))
		})
	})
	t.Run("while it looks at the host", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			own(h, k, lease, addresses(vip4)...)
			time.Sleep(lease - 2*early)
			h.take()
			h.flush()
			h.mu.Lock()
			h.delay["look"] = early + goneSoon/2
			h.mu.Unlock()
			h.look()
			time.Sleep(early + goneSoon/2)
			synctest.Wait()
			if h.has(vip4) {
				t.Error("the address stays")
			}
			time.Sleep(time.Second)
			addressFirst(t, h.take("announce"))
			gone(t, h, k)
		})
	})
	t.Run("renewed while it asks", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			all := addresses(vip4)
			own(h, k, lease, all...)
			time.Sleep(lease - 2*early)
			h.take()
			h.flush()
			h.mu.Lock()
			h.delay["check"] = early / 4
			h.mu.Unlock()
			time.Sleep(early + early/8)
			k.Set(all, h.now()+lease)
			time.Sleep(early)
			synctest.Wait()
			if s := k.Status(); !s.Owner || !h.has(vip4) || !h.open("10.9.0.100") || s.FenceRebuilt != 1 {
				t.Errorf("%+v, want an owner and the fence rebuilt once", s)
			}
			if ops := h.take("announce"); slices.Contains(ops, "remove "+vip4) {
				t.Errorf("%q", ops)
			}
		})
	})
	t.Run("and nobody answers about it", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			own(h, k, lease, addresses(vip4)...)
			h.mu.Lock()
			h.refuse["check"] = errRefused
			h.delay["shut"], h.delay["build"] = time.Second, time.Second
			h.mu.Unlock()
			time.Sleep(lease - early)
			synctest.Wait()
			if h.has(vip4) {
				t.Error("the address waits for the fence")
			}
		})
	})
	t.Run("and the kernel does nothing about addresses", func(t *testing.T) {
		bubble(t, nil, func(h *fakeHost, k *Keeper) {
			own(h, k, lease, addresses(vip4)...)
			time.Sleep(lease - 2*early)
			h.flush()
			h.mu.Lock()
			h.delay["look"], h.delay["remove"] = time.Second, time.Second
			h.mu.Unlock()
			h.look()
			time.Sleep(early + goneSoon)
			synctest.Wait()
			if h.open("10.9.0.100") || k.Status().MayServe() {
				t.Errorf("no fence: %+v", k.Status())
			}
			time.Sleep(3 * time.Second)
			gone(t, h, k)
		})
	})
}

func TestLivesAreRenewed(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		own(h, k, time.Hour, addresses(vip4)...)
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			if !h.has(vip4) {
				t.Fatal("the address ended")
			}
		}
		if got := len(h.take("announce")); got > 15 {
			t.Errorf("%d ops in 20 s", got)
		}
	})
}

func TestNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, dir := newHost(), t.TempDir()
		k, stop := h.keeper(t, dir)
		own(h, k, time.Hour, addresses(vip4)...)
		h.refuse["remove"] = errRefused // as if it were killed
		stop()
		delete(h.refuse, "remove")
		h.covered = nil
		h.take()
		_, stop = h.keeper(t, dir)
		h.expect(t, "build [10.9.0.100]", "remove "+vip4)
		stop()
	})
}

// A host whose own address is by mistake a VIP stays reachable, after a restart too.
func TestNextProcessLeavesTheHostsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, dir := newHost(), t.TempDir()
		k, stop := h.keeper(t, dir)
		own(h, k, time.Hour, addresses(vip4, "10.9.0.11/32@eth0")...)
		stop()
		h.covered = nil
		h.take()
		_, stop = h.keeper(t, dir)
		h.expect(t, "build [10.9.0.100]")
		stop()
	})
}

func TestRecordComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		dir := filepath.Join(t.TempDir(), "data")
		k, stop := h.keeper(t, dir)
		own(h, k, time.Minute, addresses(vip4)...)
		if h.has(vip4) || !strings.Contains(messages(k), "record: write the record of addresses") {
			t.Errorf("added without a record; errors: %s", messages(k))
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(claimRetry + lookGap)
		synctest.Wait()
		if !h.has(vip4) || k.Status().ErrorCount != 0 {
			t.Errorf("not added though the record can be written; errors: %s", messages(k))
		}
		stop()
	})
}

func TestHundredsAndAShortLease(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		var all []Address
		for i := range 300 {
			all = append(all, address(fmt.Sprintf("10.9.%d.%d/32@eth0", i/250, i%250+1)))
		}
		k.allow = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}
		own(h, k, time.Minute, all[:1]...)
		h.delay["add"] = time.Millisecond // a lease of 0.1 s is shorter than 300 adds
		stopped := false
		renewed := make(chan struct{})
		go func() {
			defer close(renewed)
			for range 30 {
				k.Set(all, h.now()+100*time.Millisecond)
				time.Sleep(20 * time.Millisecond)
				h.mu.Lock()
				stopped = stopped || !time.Now().Before(h.permit)
				h.mu.Unlock()
			}
		}()
		<-renewed
		if held := k.Status().HeldCount; held != 300-1 || stopped { // 10.9.0.11 is the host's
			t.Errorf("%d of 299 held; the permit ended: %v", held, stopped)
		}
	})
}

func TestSetIsCopied(t *testing.T) {
	bubble(t, nil, func(h *fakeHost, k *Keeper) {
		all := addresses(vip4)
		own(h, k, time.Minute, all...)
		all[0] = address(vip6)
		time.Sleep(3 * time.Second)
		if held := k.Status().Held; !slices.Equal(held, []netip.Addr{netip.MustParseAddr("10.9.0.100")}) {
			t.Errorf("held %v", held)
		}
	})
}
