package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ipvs-ha/ipvs-ha/timing"
)

// A lease is the leader's half: while it runs, no other node can be leader, whatever
// anybody believes. It counts from before the newest request that a majority has
// granted was sent.
type lease struct {
	mu       sync.Mutex
	term     uint64                   // what follows is of this term
	granted  map[string]time.Duration // by voter: when the newest request that it granted was sent
	asking   map[string]bool          // voters with a request under way
	reports  map[string]report        // by voter: what came with its newest grant
	hold     time.Duration            // see holdsBack
	resumed  time.Duration            // no grant of what was asked before counts
	until    time.Duration            // 0 = never held in term
	released bool                     // given away: neither asked for nor taken any more
	grows    bool                     // a third voter may be on its way: see endHold
	over     bool                     // this node stops: no lease of any term is taken any more
	mute     time.Duration            // asks nobody before: see leaseRound
}

type leaseRequest struct {
	Term   uint64        `json:"term"`
	Sent   time.Duration `json:"sent"` // on the leader's clock
	Length time.Duration `json:"length"`
	// Fitness is that of the other directors, without reasons, by id.
	Fitness map[string]Fitness `json:"fitness,omitempty"`
}

type leaseRelease struct {
	Sent time.Duration `json:"sent"`          // as in leaseRequest
	Why  string        `json:"why,omitempty"` // in words, for the heir's record
}

// runLease keeps this node's lease while it leads, and has it succeed a leader whose
// lease has ended while it follows.
func (n *Node) runLease(ctx context.Context) error {
	var asked sync.WaitGroup
	defer asked.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if n.cfg.Profile.Lease == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(n.cfg.Profile.Lease / timing.Requests)
	defer tick.Stop()
	holding := false
	for {
		term, leads := n.leading()
		if leads {
			n.leaseRound(ctx, term, &asked)
		}
		held := n.holdLease()
		if !leads && !held {
			n.lease.mu.Lock()
			n.noteLapse(n.cfg.Now())
			n.lease.mu.Unlock()
			n.loseLease()
			n.succeedLeader(ctx)
		}
		if holds := held && !leads; holds != holding {
			holding = holds
			n.tellHolding(holding)
		}
		select {
		case <-ctx.Done():
			n.lease.mu.Lock()
			n.lease.over = true
			n.lease.mu.Unlock()
			n.tenures.lost(n.cfg.Now(), Tenure{Fall: Stopped})
			n.loseLease()
			return nil
		case <-tick.C:
		case <-n.pingLease:
		}
	}
}

// leaseRound asks every voter for its grant. A leader that has lost its lease for as
// long as one lasts falls silent for a while: its requests arrive, and would keep the
// voters' promises alive, but no answer reaches it.
func (n *Node) leaseRound(ctx context.Context, term uint64, asked *sync.WaitGroup) {
	length := n.cfg.Profile.Lease
	n.standing() // has it looked at
	l := &n.lease
	l.mu.Lock()
	now := n.cfg.Now()
	if l.term != term {
		l.term, l.until, l.released, l.grows, l.mute = term, 0, false, false, 0
		l.granted, l.asking, l.reports = map[string]time.Duration{}, map[string]bool{}, map[string]report{}
		l.hold = now + length
		n.tenures.elected(term, now, 2*n.cfg.Profile.Election)
	}
	if l.until != 0 && now >= l.until {
		n.noteLapse(now)
	}
	if l.until != 0 && now > l.until+length && l.mute < now-4*length {
		l.mute = now + 4*length
	}
	if l.released || now < l.mute {
		l.mu.Unlock()
		n.loseLease()
		return
	}
	if n.guard.grant(n.id, term, now, length, n.raft.Load().CurrentTerm) {
		l.granted[n.id] = now
	}
	fitness := l.summary(now - 2*length)
	others, _ := n.otherVoters()
	for _, s := range others {
		if id := string(s.ID); !l.asking[id] {
			l.asking[id] = true
			asked.Go(func() { n.askGrant(ctx, term, s, fitness) })
		}
	}
	l.mu.Unlock()
	n.renewLease(term)
}

// summary is the fitness of those that have answered a request sent after since.
func (l *lease) summary(since time.Duration) map[string]Fitness {
	summary := map[string]Fitness{}
	for id, r := range l.reports {
		if r.at >= since {
			summary[id] = Fitness{Class: r.Class, Preference: r.Preference}
		}
	}
	return summary
}

// askGrant asks one voter once.
func (n *Node) askGrant(ctx context.Context, term uint64, s raft.Server, fitness map[string]Fitness) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Profile.Lease)
	defer cancel()
	sent := n.cfg.Now()
	body, err := json.Marshal(leaseRequest{Term: term, Sent: sent, Length: n.cfg.Profile.Lease, Fitness: fitness})
	if err == nil {
		body, err = n.requests.do(ctx, string(s.ID), n.member(s).Address, requestHead{Method: methodLease}, body)
	}
	said := report{at: sent}
	if err == nil {
		err = json.Unmarshal(body, &said)
	}
	said.Fitness = said.bounded()
	n.lease.mu.Lock()
	if n.lease.term == term {
		n.lease.asking[string(s.ID)] = false
		if err == nil && sent >= n.lease.resumed {
			n.lease.granted[string(s.ID)], n.lease.reports[string(s.ID)] = sent, said
		}
	}
	n.lease.mu.Unlock()
	if err == nil {
		n.renewLease(term)
	}
}

// answerLease serves methodLease.
func (n *Node) answerLease(from string, body []byte) ([]byte, error) {
	var request leaseRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	if request.Length > n.identity.get().Promised {
		return nil, fmt.Errorf("%w: a lease of %s is longer than the %s that this node may promise; all nodes need the same timings", ErrRefused, request.Length, n.identity.get().Promised)
	}
	if !n.guard.grant(from, request.Term, request.Sent, request.Length, n.raft.Load().CurrentTerm) {
		return nil, fmt.Errorf("%w: term %d is over", ErrRefused, request.Term)
	}
	n.told.Store(&request.Fitness)
	said := report{Fitness: n.standing(), LastIndex: n.raft.Load().LastIndex()}
	said.Reasons = nil
	return json.Marshal(said)
}

// answerRelease serves methodRelease.
func (n *Node) answerRelease(from string, body []byte) error {
	var release leaseRelease
	if err := json.Unmarshal(body, &release); err != nil {
		return err
	}
	n.guard.release(from, release.Sent)
	n.tenures.freed(n.nameOf(from), strings.ToValidUTF8(release.Why[:min(len(release.Why), maxReason)], ""), n.cfg.Now())
	ping(n.pingLease) // this node may lead already, and wait for the end of its promise
	return nil
}

// renewLease passes on how long the lease of term runs now, if it does. A new leader
// waits for the end of its own promises to others first.
func (n *Node) renewLease(term uint64) {
	var voters []string
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
	}
	own := n.fitness()
	l := &n.lease
	l.mu.Lock()
	if now, leads := n.leading(); l.term != term || l.released || l.over || !leads || now != term {
		l.mu.Unlock()
		return
	}
	if l.until == 0 && n.cfg.Now() < l.hold && n.holdsBack(own, voters) {
		l.mu.Unlock()
		ping(n.pingLead)
		return
	}
	var sent []time.Duration
	for _, id := range voters {
		if at, ok := l.granted[id]; ok {
			sent = append(sent, at)
		}
	}
	slices.SortFunc(sent, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	majority := len(voters)/2 + 1
	if len(sent) < majority || n.guard.binds(n.id) > 0 {
		l.mu.Unlock()
		return
	}
	length := n.cfg.Profile.Lease
	until := sent[majority-1] + length - length/timing.Drift - timing.FenceLateness
	now := n.cfg.Now()
	renewed := until > l.until && until > now
	if renewed {
		if l.until != 0 && l.until <= now {
			n.noteLapse(now) // too short a one for leaseRound to see
		}
		l.until = until
		n.tenures.leased(now)
		n.cfg.OnLease(until) // under the lock, so that the newest is the last
	}
	l.mu.Unlock()
}

// holdsBack reports whether this node, which was just elected, is to leave the lease
// alone for a moment, since a fitter director is there that it can give leadership to,
// or was a moment ago. lease.mu is held.
func (n *Node) holdsBack(own Fitness, voters []string) bool {
	told := map[string]Fitness{}
	if by := n.told.Load(); by != nil {
		told = *by
	}
	return own.Class > 0 && slices.ContainsFunc(voters, func(id string) bool {
		f, known := told[id]
		if said, ok := n.lease.reports[id]; ok {
			f, known = said.Fitness, true
		}
		return id != n.id && known && f.Class < own.Class
	})
}

// loseLease tells that this node's lease, if it had one, counts no more.
func (n *Node) loseLease() {
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	n.cfg.OnLease(0)
}

// releaseLease gives the lease up before its end, so that heir, the next leader, need
// not wait for it; why is in words. BeforeRelease must have taken back what the lease
// allowed. The voters are told meanwhile, so that one that does not answer holds
// nobody up; wait returns when that is over.
func (n *Node) releaseLease(ctx context.Context, heir, why string) (wait func()) {
	var wg sync.WaitGroup
	l := &n.lease
	l.mu.Lock()
	term, leads := n.leading()
	if !leads || l.term != term {
		l.mu.Unlock()
		return wg.Wait
	}
	l.released = true
	n.tenures.lost(n.cfg.Now(), Tenure{Fall: Given, Heir: heir, Why: why})
	n.cfg.OnLease(0)
	l.mu.Unlock()
	if err := n.cfg.BeforeRelease(ctx); err != nil {
		n.log.Warn("the lease is not given up but runs out", "error", err)
		return wg.Wait
	}
	sent := n.cfg.Now()
	body, err := json.Marshal(leaseRelease{Sent: sent, Why: why})
	if err != nil {
		return wg.Wait
	}
	n.guard.release(n.id, sent)
	others, _ := n.otherVoters()
	for _, s := range others {
		wg.Go(func() { // lost: the vote waits for the promise's end
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			_, _ = n.requests.do(ctx, string(s.ID), n.member(s).Address, requestHead{Method: methodRelease}, body)
		})
	}
	return wg.Wait
}

// resumeLease takes a release back, after a transfer that came to nothing. The voters
// have forgotten by then what they granted before.
func (n *Node) resumeLease() {
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	n.lease.released, n.lease.until, n.lease.resumed = false, 0, n.cfg.Now()
	clear(n.lease.granted)
	ping(n.pingLease)
}
