package vip

import (
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"time"
)

const (
	// lookEvery is the longest time between two looks at the host: an address or a
	// rule that somebody removed is back by then.
	lookEvery = time.Second
	// lookGap is the shortest, for hosts on which interfaces come and go all the time.
	lookGap = 50 * time.Millisecond
	// lookRetry is the time after one that failed.
	lookRetry = 250 * time.Millisecond
	// checkGap is the longest time between two looks at the fence of a prepared host.
	checkGap = 10 * time.Millisecond
	// goneSoon is how long addresses may take to go that no fence is before.
	goneSoon = 5 * time.Millisecond
)

// tenure is what belongs to being the owner.
type tenure struct {
	active   bool          // the last look was that of an owner to be
	ready    bool          // and it left nothing in the way of opening the fence
	owner    bool          // the fence was opened and the lease has not ended
	until    time.Duration // when the permit that was given ends; 0 = none
	lag      time.Duration // how long giving one takes
	checked  time.Duration // when the fence was last looked at because a lease was about to end
	held     map[netip.Addr]Address
	schedule schedule
	pause    time.Duration // no announcement before
}

// round does what is due and returns when the next round is.
func (k *Keeper) round() time.Duration {
	if !k.built && len(k.held) == 0 {
		k.start()
	}
	w := k.newest()
	switch now := k.now(); {
	case now < w.until:
		k.hold(w)
	case now < w.soon && k.fenceState == FenceShut:
		k.prepare(w)
	default:
		k.yield(w)
	}
	k.publish()
	return k.next()
}

// leave is the last round.
func (k *Keeper) leave() {
	w := k.newest()
	w.until, w.soon, k.lookAt = 0, 0, 0 // what is not known to be ours may be there yet
	k.yield(w)
	k.publish()
	if len(k.held) > 0 {
		k.log.Error("addresses are left on the host and end by themselves", "count", len(k.held), "within", addressLife)
	}
}

// start covers, before anybody says what the VIPs are, what the last process left:
// its addresses may still be there.
func (k *Keeper) start() {
	addrs, err := k.fence.Covered()
	if err != nil && !isGone(err) {
		k.fail("fence", err)
		return
	}
	for _, a := range addrs {
		k.covered[a] = true
	}
	claimed, _ := k.claimer.now()
	for a := range claimed {
		k.covered[a.Addr()] = true
	}
	k.build()
}

// hold makes this host the owner, or keeps it so. An owner's permit is renewed
// first: the rest may take a while.
func (k *Keeper) hold(w wishes) {
	if k.owner && !k.serves() {
		k.yield(w)
		return
	}
	if !k.owner && k.ready {
		k.promote()
		k.publish() // a look at the host may take long
	}
	if k.due(w, true) {
		k.tend(w, true)
	}
	if k.owner {
		k.defend()
		k.announce(nil)
	}
}

// prepare has the addresses there before the lease is. The former owner may serve yet:
// the fence is looked at before they are added, after that, and in each round.
func (k *Keeper) prepare(w wishes) {
	k.resign()
	trusted := k.trusted()
	if trusted && k.due(w, true) {
		k.tend(w, true)
		trusted = k.owner || k.trusted()
	}
	if !trusted || !k.ready {
		k.ready = false
		k.yield(w)
	}
}

// promote opens the fence. Addresses that are not there yet come after it: each serves as
// soon as it is there, and no packet for one that is not gets as far as the fence.
func (k *Keeper) promote() {
	began := k.now()
	if began >= k.newest().until {
		return
	}
	// Who takes the lease back meanwhile must not hear that nothing is served; who did
	// before is seen by newest.
	k.mu.Lock()
	k.status.Opening = true
	k.mu.Unlock()
	if !k.open(k.newest().until) {
		return
	}
	k.owner = true
	k.schedule = schedule{}
	for a := range k.held {
		k.schedule.begin(a, began, k.timing)
	}
	k.announce(nil)
	k.listenFor()
	k.log.Info("this host is the owner of the VIPs", "addresses", len(k.plan.add)+len(k.plan.held), "for", k.until-k.now())
}

// yield makes this host no owner: the fence first, which somebody may wait for, then
// the addresses. Unless something about the host has changed, those that are known go without
// a look at it, which takes longer than they do and comes a moment later, or at once when
// nothing else keeps packets away.
func (k *Keeper) yield(w wishes) {
	k.resign()
	known := k.active && !k.hinted()
	if known || !k.built {
		held := slices.SortedFunc(maps.Values(k.held), func(a, b Address) int { return a.Addr().Compare(b.Addr()) })
		for batch := range slices.Chunk(held, maxBatch) {
			k.applyBatch(remove, batch, nil)
		}
	}
	if known && k.built && k.fenced {
		k.active, k.ready = false, false
		k.lookAt = min(k.lookAt, k.now()+lookGap)
	}
	if k.due(w, false) || len(k.held) > 0 {
		k.tend(w, false)
	}
}

// resign shuts the fence, if it is not, and says so at once: whoever waits for it, so that
// another host may open its own, goes first.
func (k *Keeper) resign() {
	was := k.owner
	k.owner, k.schedule = false, nil
	if k.built && k.fenceState != FenceShut {
		k.shut()
	}
	if was {
		k.publish()
		runtime.Gosched()
		k.listenFor()
		k.log.Info("this host is not the owner of the VIPs any more", "addresses", len(k.held))
	}
}

// meanwhile calls do, which asks the kernel about interfaces or addresses. All of
// that waits for one lock in the kernel that others may hold for seconds. An owner's
// permit is renewed, or ended, in the meantime, and what is due is announced. Addresses
// that do not go soon get a fence.
func (k *Keeper) meanwhile(do func()) {
	if !k.owner && k.built {
		do()
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	for k.owner {
		k.announce(done)
		timer := time.NewTimer(max(k.wake()-k.now(), time.Millisecond))
		select {
		case <-done:
			timer.Stop()
			k.ping() // one that was taken here may have been about something else
			return
		case <-k.pingC:
		case <-timer.C:
		}
		timer.Stop()
		if !k.serves() {
			k.resign()
		}
	}
	if !k.built {
		timer := time.NewTimer(goneSoon)
		select {
		case <-done:
		case <-timer.C:
			k.build()
		}
		timer.Stop()
	}
	<-done
	k.ping()
}

// due reports whether the host is to be looked at.
func (k *Keeper) due(w wishes, active bool) bool {
	now := k.now()
	return active != k.active || w.version != k.seen || now >= k.lookAt || k.hinted() && !k.prepared(w) && now >= k.looked+lookGap
}

// prepared reports whether this host waits for the lease with all that it needs. It does not
// look at each change then, of which its own addresses are many, to be there when that comes.
func (k *Keeper) prepared(w wishes) bool { return k.ready && !k.owner && k.now() >= w.until }

// next returns how long there is nothing to do, unless something happens.
func (k *Keeper) next() time.Duration {
	at, w := k.lookAt, k.newest()
	switch {
	case k.prepared(w):
		at = min(at, k.now()+checkGap)
	case !k.owner && k.built && k.fenceState == FenceUnknown: // to be shut
		at = min(at, k.now()+lookGap)
	case k.hinted():
		at = min(at, k.looked+lookGap)
	}
	if k.active || k.now() < w.soon {
		at = min(at, w.end())
	}
	if k.owner {
		at = min(at, k.wake())
	}
	return max(at-k.now(), time.Millisecond)
}

// wake is when an owner has something to do that needs no look.
func (k *Keeper) wake() time.Duration {
	at := k.until
	if until := k.newest().until; until > k.now() {
		at = min(at, k.checkAt(until))
	}
	if announce, ok := k.schedule.next(); ok {
		at = min(at, max(announce, k.pause))
	}
	return at
}

// tend looks at the host and makes fence and addresses as they must be. An owner to
// be looks afterwards when it has looked a moment ago: each change since is a hint, the
// last lookGap's may be one yet.
func (k *Keeper) tend(w wishes, active bool) {
	k.mu.Lock()
	hinted := k.hint
	k.hint = false
	k.mu.Unlock()
	known := k.current && !hinted && active && !k.active && k.now() < k.lookAt
	k.active, k.ready, k.seen = active, false, w.version
	was := k.owner
	if known {
		defer k.look()
	} else if !k.lookNow() || was && !k.built {
		return
	}
	h := k.host
	claimed, _ := k.claimer.now()
	hops, stale := k.gateways.now()
	k.fail("routes", stale)
	may := rules{allow: k.allow, claimed: claimed, hops: hops}
	p := makePlan(h, w.all, active, may)
	covered := k.cover(w, p)
	if !covered { // nothing comes before the fence
		p.add = slices.DeleteFunc(p.add, func(a Address) bool { return !k.owner || !k.covered[a.Addr()] })
	}
	if w.version > 0 {
		k.claimer.set(k.claims(w.all, p.ours))
	}
	k.plan = p
	k.fail("announcements", k.wire.Listen(linksOf(h, w.all)))
	if k.ready = active && covered; k.ready && !k.owner {
		k.promote()
	}
	k.apply(p)
	if len(k.failures) == 0 {
		k.lookAt = k.looked + lookEvery
	}
}

// lookNow looks at the host and reports whether it could.
func (k *Keeper) lookNow() bool {
	k.looked = k.now()
	k.lookAt = k.looked + lookRetry
	var h host
	var err error
	k.meanwhile(func() { h, err = k.network.Look() })
	k.fail("addresses", err)
	k.current = err == nil
	if k.current {
		k.host = h
	}
	return k.current
}

// claims are the addresses to have in the record: what the fence covers, for the
// next process covers what it finds there, and what is on the host yet.
func (k *Keeper) claims(all, ours []Address) map[Address]bool {
	claims := make(map[Address]bool, len(all))
	for _, a := range slices.Concat(all, ours) {
		if k.covered[a.Addr()] {
			claims[a] = true
		}
	}
	return claims
}

func linksOf(h host, all []Address) []link {
	found := map[string]link{}
	for _, a := range all {
		if l, ok := h.links[a.Interface]; ok {
			found[l.Name] = l
		}
	}
	return slices.Collect(maps.Values(found))
}

// apply adds, renews and removes addresses. An owner's permit is renewed in between:
// hundreds of addresses take longer than a short lease.
func (k *Keeper) apply(p plan) {
	lost := map[netip.Addr]bool{}
	held := map[netip.Addr]Address{}
	for _, a := range p.ours {
		held[a.Addr()] = a
	}
	for _, a := range p.add {
		if _, had := k.held[a.Addr()]; had && k.owner {
			lost[a.Addr()] = true
		}
	}
	k.held = held
	var errs []error
	for _, step := range []struct {
		kind      changeKind
		addresses []Address
	}{{add, p.add}, {renew, p.renew}, {remove, p.remove}} {
		for batch := range slices.Chunk(step.addresses, maxBatch) {
			if step.kind != remove && k.now() >= k.newest().end() {
				break // the next round removes them
			}
			errs = append(errs, k.applyBatch(step.kind, batch, lost)...)
			if k.owner && !k.serves() {
				k.resign()
			}
			if !k.owner && k.ready { // the lease came meanwhile
				k.promote()
			}
		}
	}
	k.fail("addresses", errors.Join(errs...))
	k.listenFor()
}

// applyBatch makes one kind of change to addresses.
func (k *Keeper) applyBatch(kind changeKind, batch []Address, lost map[netip.Addr]bool) []error {
	changes := make([]change, len(batch))
	for i, a := range batch {
		changes[i] = change{kind: kind, prefix: a.Prefix, index: k.host.links[a.Interface].Index, life: addressLife}
	}
	var results []error
	k.current = false
	k.meanwhile(func() { results = k.network.Apply(changes) })
	var errs []error
	for i, a := range batch {
		var err error
		if results != nil {
			err = results[i]
		}
		switch {
		case err != nil && !(kind == remove && isGone(err)):
			errs = append(errs, changeError(kind, a, err))
			continue
		case kind == remove:
			if k.held[a.Addr()] == a { // not there in another form
				delete(k.held, a.Addr())
			}
			continue
		}
		k.held[a.Addr()] = a
		if kind == add && k.owner {
			k.schedule.begin(a.Addr(), k.now(), k.timing)
		}
		if kind == add && lost[a.Addr()] {
			k.repaired++
			k.lastRepaired = a.Addr()
			k.log.Warn("somebody removed an address of ours: it is back", "address", a)
		}
	}
	return errs
}
