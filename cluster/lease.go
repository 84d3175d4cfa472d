package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ipvs-ha/ipvs-ha/timing"
)

// A lease is the leader's half: while it runs, no other node has one, whatever anybody
// believes. It counts from before the newest request that a majority has granted was
// sent.
type lease struct {
	mu       sync.Mutex
	term     uint64                   // what follows is of this term
	granted  map[string]time.Duration // by voter: when the newest request that it granted was sent
	asking   map[string]bool          // voters with a request under way
	reports  map[string]report        // by voter: what came with its newest grant
	hold     time.Duration            // see holdsBack
	since    time.Duration            // when this node saw that it leads in term
	prepares bool                     // not asked for yet: see prepare
	until    time.Duration            // 0 = never held in term
	served   time.Duration            // what OnLease was told last, of whatever term
	pass     *pass                    // of the leadership of term; nil: none
	released bool                     // given away: neither asked for nor taken any more
	grows    bool                     // a third voter may be on its way: see endHold
	over     bool                     // this node stops: no lease of any term is taken any more
	mute     time.Duration            // asks nobody before: see leaseRound
}

type leaseRequest struct {
	Term   uint64        `json:"term"`
	Sent   time.Duration `json:"sent"` // on the leader's clock
	Length time.Duration `json:"length"`
	Heir   string        `json:"heir,omitempty"` // id of the next leader, whom the voters may elect; "" none
	Why    string        `json:"why,omitempty"`  // it gets leadership, in words
	// Fitness is that of the other directors, without reasons, by id.
	Fitness map[string]Fitness `json:"fitness,omitempty"`
}

type leaseRelease struct {
	Term uint64        `json:"term"` // as in leaseRequest
	Sent time.Duration `json:"sent"`
	Why  string        `json:"why,omitempty"` // in words
}

// freedBy is a leader that has given up its lease of term.
type freedBy struct {
	id, why string
	term    uint64
}

// leaseStep is the least by which a lease is renewed: all voters' answers to one round
// were asked for at almost the same time.
const leaseStep = time.Millisecond

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
	due := time.NewTimer(n.cfg.Profile.Lease) // of a follower
	defer due.Stop()
	holding := false
	for {
		term, leads := n.leading()
		if leads {
			n.leaseRound(ctx, term, &asked)
		}
		held := n.holdLease()
		if !leads && !held && !n.passes() {
			n.lease.mu.Lock()
			n.noteLapse(n.cfg.Now())
			n.lease.mu.Unlock()
			n.loseLease()
			due.Reset(n.succeedLeader(ctx))
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
		case <-due.C:
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
		l.term, l.since, l.until, l.pass, l.released, l.grows, l.mute = term, now, 0, nil, false, false, 0
		l.granted, l.asking, l.reports = map[string]time.Duration{}, map[string]bool{}, map[string]report{}
		l.hold = now + length
		n.tenures.elected(term, now, 2*n.cfg.Profile.Election)
		if l.prepares = n.guard.binds(n.id) > timing.FenceLateness; l.prepares { // its predecessor serves
			asked.Go(func() { n.prepare(ctx, term) })
		}
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
	if l.prepares {
		l.mu.Unlock()
		return
	}
	request := leaseRequest{Term: term, Length: length, Fitness: l.summary(now - 2*length)}
	if l.pass != nil {
		request.Heir, request.Why = l.pass.heir, l.pass.why
	}
	if wait, ok := n.guard.grant(n.id, term, now, length, request.Heir, n.raft.Load().CurrentTerm); ok {
		l.granted[n.id] = now
		l.knows(n.id, request.Heir)
	} else if wait > 0 {
		time.AfterFunc(wait, func() { ping(n.pingLease) })
	}
	others, _ := n.otherVoters()
	for _, s := range others {
		if id := string(s.ID); !l.asking[id] {
			l.asking[id] = true
			asked.Go(func() { n.askGrant(ctx, s, request) })
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
func (n *Node) askGrant(ctx context.Context, s raft.Server, request leaseRequest) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Profile.Lease)
	defer cancel()
	sent := n.cfg.Now()
	request.Sent = sent
	body, err := json.Marshal(request)
	if err == nil {
		body, err = n.requests.do(ctx, string(s.ID), n.member(s).Address, requestHead{Method: methodLease}, body)
	}
	said := report{at: sent}
	if err == nil {
		err = json.Unmarshal(body, &said)
	}
	said.Fitness = said.bounded()
	if said.Passed {
		n.tenures.freed(n.nameOf(string(s.ID)), bounded(said.Why), n.cfg.Now())
		n.guard.release(string(s.ID), request.Term, 0) // all that it had before that term
	} else if said.Freed != "" {
		n.tenures.freed(n.nameOf(said.Freed), bounded(said.Why), n.cfg.Now())
	}
	n.lease.mu.Lock()
	if n.lease.term == request.Term {
		n.lease.asking[string(s.ID)] = false
		if err == nil {
			n.lease.granted[string(s.ID)], n.lease.reports[string(s.ID)] = sent, said
			if !n.lease.knows(string(s.ID), request.Heir) {
				ping(n.pingLease)
			}
		}
	}
	n.lease.mu.Unlock()
	if err == nil {
		n.renewLease(request.Term)
		if n.cfg.Now()-sent > n.cfg.Profile.Lease/timing.Requests { // it waited for another promise's end, and is old
			ping(n.pingLease)
		}
	}
}

// answerLease serves methodLease. A request that comes while a promise to another leader
// binds waits for its end, like a vote: the next lease then begins with that.
func (n *Node) answerLease(ctx context.Context, from string, body []byte) ([]byte, error) {
	var request leaseRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	if request.Length > n.identity.get().Promised {
		return nil, fmt.Errorf("%w: a lease of %s is longer than the %s that this node may promise; all nodes need the same timings", ErrRefused, request.Length, n.identity.get().Promised)
	}
	why, passed := n.passOn(from, request.Term)
	early := n.guard.early()
	for {
		wait, ok := n.guard.grant(from, request.Term, request.Sent, request.Length, request.Heir, n.raft.Load().CurrentTerm)
		if ok {
			break
		}
		if wait == 0 {
			return nil, fmt.Errorf("%w: term %d is over", ErrRefused, request.Term)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-early:
			early = n.guard.early()
		case <-timer.C:
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: another leader's lease has not ended: %w", ErrRefused, err)
		}
	}
	if request.Heir == n.id {
		n.tenures.chosen(n.nameOf(from), bounded(request.Why))
	}
	n.told.Store(&request.Fitness)
	said := report{Fitness: n.standing(), LastIndex: n.raft.Load().LastIndex(), Passed: passed, Why: why}
	said.Reasons = nil
	if by := n.freedBy.Load(); by != nil && by.term < request.Term {
		if by.id == from { // it leads again
			n.freedBy.CompareAndSwap(by, nil)
		} else if !passed {
			said.Freed, said.Why = by.id, by.why
		}
	}
	return json.Marshal(said)
}

// answerRelease serves methodRelease.
func (n *Node) answerRelease(from string, body []byte) error {
	var release leaseRelease
	if err := json.Unmarshal(body, &release); err != nil {
		return err
	}
	n.tenures.freed(n.nameOf(from), bounded(release.Why), n.cfg.Now()) // before it may have the lease
	n.freedBy.Store(&freedBy{from, bounded(release.Why), release.Term})
	n.guard.release(from, release.Term, release.Sent)
	ping(n.pingLease) // this node leads already, and waits for the end of its promise
	return nil
}

// renewLease passes on how long the lease of term runs now, if it does.
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
	if len(sent) < majority {
		l.mu.Unlock()
		return
	}
	length := n.cfg.Profile.Lease
	until := sent[majority-1] + length - length/timing.Drift - timing.FenceLateness
	now := n.cfg.Now()
	renewed := until >= l.until+leaseStep && until > now
	if renewed {
		if l.until != 0 && l.until <= now {
			n.noteLapse(now) // too short a one for leaseRound to see
		}
		l.until = until
		n.tenures.leased(now)
		n.tellLease(until)
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
	n.tellLease(0)
}

// tellLease tells until when this node has the lease, 0: it has none. lease.mu is held,
// so that the newest word is the last.
func (n *Node) tellLease(until time.Duration) {
	n.lease.served = until
	n.cfg.OnLease(until)
}
