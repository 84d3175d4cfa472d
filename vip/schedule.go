package vip

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	// maxBurst is how many announcements are sent at once. Switches and hosts drop what
	// comes in larger bursts.
	maxBurst = 64
	// burstPause is the time that each such burst has, and a smaller one its part of it.
	burstPause = 10 * time.Millisecond
)

// Announce says how often an owner announces its addresses: Count times after
// Interval each, Count times more when Again has passed, then every Every. Switches
// and neighbours lose announcements, and forget.
type Announce struct {
	Count    int           // 0 = 5
	Interval time.Duration // 0 = 0.2 s
	Again    time.Duration // 0 = 5 s
	Every    time.Duration // 0 = 10 s
}

func (a Announce) withDefaults() Announce {
	if a.Count == 0 {
		a.Count = 5
	}
	if a.Interval == 0 {
		a.Interval = 200 * time.Millisecond
	}
	if a.Again == 0 {
		a.Again = 5 * time.Second
	}
	if a.Every == 0 {
		a.Every = 10 * time.Second
	}
	return a
}

// after returns how long to wait after announcement number n, counted from 1.
func (a Announce) after(n int) time.Duration {
	switch {
	case n == a.Count:
		return a.Again
	case n < 2*a.Count:
		return a.Interval
	}
	return a.Every
}

// schedule says when each address is to be announced next.
type schedule map[netip.Addr]turn

type turn struct {
	said int           // announcements since it began
	at   time.Duration // of the next, since boot
}

// begin has a announced at once, and often. What is being announced often already
// goes on as it is, so that two hosts that both claim an address do not make a storm.
func (s schedule) begin(a netip.Addr, now time.Duration, timing Announce) {
	if t, ok := s[a]; ok && t.said < timing.Count {
		return
	}
	s[a] = turn{at: now}
}

// done notes that a was announced at now.
func (s schedule) done(a netip.Addr, now time.Duration, timing Announce) {
	t := s[a]
	t.said++
	t.at = now + timing.after(t.said)
	s[a] = t
}

// due returns the addresses to announce at now, at most n: the longest due first, so that
// none is announced again before all were once.
func (s schedule) due(now time.Duration, n int) []netip.Addr {
	type entry struct {
		at time.Duration
		a  netip.Addr
	}
	var entries []entry
	for a, t := range s {
		if t.at <= now {
			entries = append(entries, entry{t.at, a})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(cmp.Compare(a.at, b.at), a.a.Compare(b.a)) })
	due := make([]netip.Addr, min(len(entries), n))
	for i := range due {
		due[i] = entries[i].a
	}
	return due
}

// next returns when the next announcement is due.
func (s schedule) next() (at time.Duration, ok bool) {
	for _, t := range s {
		if !ok || t.at < at {
			at, ok = t.at, true
		}
	}
	return at, ok
}
