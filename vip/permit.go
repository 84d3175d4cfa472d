package vip

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

const (
	// maxLate is by how much a permit may outlast the lease, beside the kernel's own
	// lateness of one tick. Whoever grants leases allows for both.
	maxLate = 2 * time.Millisecond
	// permitTries is how often a permit that came out late is given again, shorter.
	permitTries = 5
	// maxLag bounds what is taken off a permit for the time that giving it takes.
	maxLag = 50 * time.Millisecond
	// doubt is for how long a fence is not relied upon that somebody had removed: what
	// does that may do so again.
	doubt = 10 * time.Second
	// early is by how much an owner without a fence to rely on ends before its lease does.
	// To take addresses away takes this process longer than the kernel to end a permit, and
	// all that a successor waits for after the lease may be a message or two.
	early = 40 * time.Millisecond
	// earlyGap is the time between two looks at the fence of a lease that is about to end.
	earlyGap = early / 2
)

// open lets packets through until a time, and reports whether it did.
func (k *Keeper) open(until time.Duration) bool { return k.raise() && k.permit(until) }

// serves reports whether an owner is one still, and renews its permit. Before the end of a
// lease that nobody renews, it asks whether the kernel would end it too.
func (k *Keeper) serves() bool {
	until := k.newest().until
	if now := k.now(); now < until && now >= k.checkAt(until) {
		k.checked = now
		if !k.trusted() && k.newest().until == until {
			k.log.Warn("the lease is given up before its end, at which the fence may not be there", "before", until-now)
			k.forgone = until
			k.distrust()
			return false
		}
	}
	return k.extend()
}

// checkAt is when an owner looks at its fence, if nobody renews the lease that ends at until.
func (k *Keeper) checkAt(until time.Duration) time.Duration {
	return max(until-early, k.checked+earlyGap)
}

// trusted looks at the fence and reports whether it is whole and will be.
func (k *Keeper) trusted() bool {
	err := k.fence.Check()
	if isGone(err) {
		k.lose(err)
	}
	return err == nil && k.now() >= k.doubted
}

// lose notes that somebody has removed the fence.
func (k *Keeper) lose(err error) {
	k.noteRebuild(err)
	k.distrust()
}

// distrust has the addresses go before anything is done about the fence, which takes longer.
// The next look builds it.
func (k *Keeper) distrust() {
	k.built, k.until, k.lookAt = false, 0, k.now()
	k.setFence(FenceUnknown)
}

// extend gives an owner's permit the newest end when no more than two thirds of what it
// may last are left, and reports whether the owner has still one. Leases are renewed many
// times in their length; each permit is work for the kernel. A renewal that the kernel
// refuses is no end: the permit before lasts.
func (k *Keeper) extend() bool {
	now, until := k.now(), k.newest().until
	if until < k.until || 3*(k.until-now) <= 2*(until-now) {
		k.open(until)
	}
	return k.now() < k.until
}

// permit gives a permit that ends at until. Its length is relative to the moment
// when the kernel takes it, so whatever delays that moment delays the end. The clock
// is read before and after: the end lies between the two readings plus the length.
func (k *Keeper) permit(until time.Duration) bool {
	for range permitTries {
		before := k.now()
		left := (until - before - k.lag).Truncate(time.Millisecond)
		if left < minPermit {
			break
		}
		err := k.fence.Permit(left)
		after := k.now()
		took := after - before
		k.lag = min(max(took, k.lag/2), maxLag)
		if errors.Is(err, errLate) {
			k.until = 0
			continue
		}
		if err != nil {
			k.failFence(err)
			return false
		}
		if after+left <= until+maxLate {
			k.until = until
			k.setFence(FenceOpen)
			k.fail("fence", nil)
			return true
		}
		k.log.Debug("a permit was late and is given again", "by", after+left-until, "took", took)
		k.until = 0
		k.lag = min(2*took, maxLag)
	}
	// Too little is left to be worth a permit. What was given before may last, unless
	// it ends later than the lease does.
	if k.until == 0 || k.until > until {
		k.shut()
	}
	return false
}

// shut ends the permit.
func (k *Keeper) shut() {
	err := k.fence.Shut()
	if isGone(err) {
		k.lose(err)
		return
	}
	if err != nil {
		k.failFence(err)
		return
	}
	k.until = 0
	k.setFence(FenceShut)
	k.fail("fence", nil)
}

// raise makes the fence whole if somebody removed a part of it, and reports whether
// it is.
func (k *Keeper) raise() bool {
	if !k.built {
		return k.build()
	}
	err := k.fence.Check()
	if err != nil && !isGone(err) {
		k.failFence(err)
		return false
	}
	if err == nil {
		return true
	}
	k.noteRebuild(err)
	return k.build()
}

func (k *Keeper) noteRebuild(err error) {
	k.fenceRebuilt++
	k.doubted = k.now() + doubt
	k.log.Warn("somebody removed the fence or a part of it: it is built anew", "error", err)
}

// build makes the fence anew. That shuts it, so that an owner's permit is given
// again.
func (k *Keeper) build() bool {
	err := k.fence.Build(slices.Collect(maps.Keys(k.covered)))
	k.built = err == nil
	if err != nil {
		k.failFence(err)
		return false
	}
	k.until = 0
	k.setFence(FenceShut)
	k.fail("fence", nil)
	if k.owner {
		return k.permit(k.newest().until)
	}
	return true
}

// cover makes the fence cover every VIP, and reports whether it does. An address
// that the host had by other means before it became a VIP is left out, for it may
// be the one by which the host is reached. What was covered before stays so.
func (k *Keeper) cover(w wishes, p plan) bool {
	if !k.raise() {
		return false
	}
	if w.version == 0 {
		return true
	}
	keep := map[netip.Addr]bool{}
	var more, less []netip.Addr
	for _, a := range p.ours {
		keep[a.Addr()] = true
	}
	for _, a := range w.all {
		addr := a.Addr()
		if !keep[addr] && !k.covered[addr] && !p.foreign[addr] {
			more = append(more, addr)
		}
		keep[addr] = true
	}
	for _, a := range p.ours {
		if !k.covered[a.Addr()] {
			more = append(more, a.Addr())
		}
	}
	for a := range k.covered {
		if !keep[a] {
			less = append(less, a)
		}
	}
	if len(more)+len(less) == 0 {
		return true
	}
	if err := k.fence.Change(more, less); err != nil {
		k.built = false // what it covers is not known
		k.failFence(err)
		return false
	}
	for _, a := range more {
		k.covered[a] = true
	}
	for _, a := range less {
		delete(k.covered, a)
	}
	return true
}

// setFence notes the state of the fence. One that is to be off may be there still.
func (k *Keeper) setFence(f Fence) {
	if !k.fenced && f != FenceUnknown {
		f = FenceOff
	}
	k.fenceState = f
}

func (k *Keeper) failFence(err error) {
	k.setFence(FenceUnknown)
	k.fail("fence", err)
}

// fail notes why an object is not as it should be, nil for no reason.
func (k *Keeper) fail(object string, err error) {
	if err == nil {
		delete(k.failures, object)
	} else {
		k.failures[object] = err
	}
}

func changeError(kind changeKind, a Address, err error) error {
	return fmt.Errorf("%s %s: %w", [...]string{"add", "renew", "remove"}[kind], a, err)
}
