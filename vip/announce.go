package vip

import (
	"net"
	"net/netip"
)

// listenFor says whose announcements by others count: those for what this owner
// holds.
func (k *Keeper) listenFor() {
	if err := k.wire.Hear(k.owner); err != nil {
		k.fail("announcements", err)
	}
	var holding map[netip.Addr]link
	if k.owner {
		holding = make(map[netip.Addr]link, len(k.held))
		for a, on := range k.held {
			holding[a] = k.host.links[on.Interface]
		}
		for a := range k.schedule {
			if _, ok := k.held[a]; !ok {
				delete(k.schedule, a)
			}
		}
	}
	k.mu.Lock()
	k.holding = holding
	if holding == nil {
		k.foreign, k.foreigns = map[netip.Addr]net.HardwareAddr{}, 0
	}
	k.mu.Unlock()
}

// defend announces again what somebody else has announced as theirs: the last word
// that neighbours hear should be the owner's.
func (k *Keeper) defend() {
	k.mu.Lock()
	foreign, count := k.foreign, k.foreigns
	if count > 0 {
		k.foreign, k.foreigns = map[netip.Addr]net.HardwareAddr{}, 0
	}
	k.mu.Unlock()
	if count == 0 {
		return
	}
	k.foreignCount += count
	now := k.now()
	for a, mac := range foreign {
		if _, ok := k.held[a]; ok {
			k.schedule.begin(a, now, k.timing)
			k.lastForeign = Foreign{a, mac.String()}
			k.log.Warn("another host claims an address of ours: it is announced again", "address", a, "mac", mac.String())
		}
	}
}

// announce sends announcements that are due, a burst at most, and until the kernel has
// done what it does meanwhile: an address that is not there yet comes first. Packet
// sockets pass by the fence, so the clock is checked right before each.
func (k *Keeper) announce(done <-chan struct{}) {
	now := k.now()
	if now < k.pause {
		return
	}
	for _, a := range k.schedule.due(now, maxBurst) {
		select {
		case <-done:
			return
		default:
		}
		k.pause = max(k.pause, now) + burstPause/maxBurst
		l := k.host.links[k.held[a].Interface]
		if l.Carrier {
			if k.now() >= k.until {
				return
			}
			if err := k.wire.Announce(l, a); err != nil {
				k.log.Debug("announce", "address", a, "interface", l.Name, "error", err)
			}
		}
		k.schedule.done(a, now, k.timing)
	}
}
