package cluster

import (
	"sync"
	"time"

	"github.com/ipvs-ha/ipvs-ha/timing"
)

// A guard keeps this node's promises as a voter. A voter that grants a leader's lease
// request promises to grant nobody else's for the lease's length. A lease needs the
// grants of a majority, and some voter is in any two of those: the later lease begins
// after the end of its promise, and so after that of the earlier one.
//
// Nor does a voter help anybody else become leader meanwhile, so that none is elected
// who could not have a lease at once, or in a moment. The one exception is the heir that
// the leader itself names.
type guard struct {
	now func() time.Duration // boot time

	mu        sync.Mutex
	to        string        // whom the newest promise was made to; "" nobody
	term      uint64        // as the leader of which term
	heir      string        // who may be elected in spite of it; "" nobody
	until     time.Duration // its end
	conceded  bool          // it is not renewed: see concede
	asked     time.Duration // when the request for it was sent, on the leader's clock
	notBefore time.Duration // nothing before: a former run may have promised until then
	floor     uint64        // no grant to a leader of an older term
	pending   uint64        // the term of the vote that raft decides on now; 0 = none
	freed     chan struct{} // see early; nil: nobody waits
}

// grant answers a lease request of the leader to in term, who names heir as the next
// one; "" nobody. raftTerm reads raft's own term, which is on disk before a vote is
// answered. asked is when the request was sent, on the leader's clock. When a promise
// binds it returns false, and for how long.
func (g *guard) grant(to string, term uint64, asked, length time.Duration, heir string, raftTerm func() uint64) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if term < g.pending || term < g.floor || term < raftTerm() {
		return 0, false
	}
	if wait := g.bound(to); wait > 0 {
		return wait, false
	}
	if wait := g.leaving(); g.to == to && wait > 0 {
		return wait, false
	}
	if g.to != to || g.term != term { // another run of the same node may have another clock
		g.asked, g.heir = 0, ""
	}
	if asked >= g.asked {
		g.asked = asked
		if g.heir != heir {
			g.heir = heir
			g.wake()
		}
	}
	g.to, g.term, g.until, g.conceded = to, term, g.now()+length, false
	return 0, true
}

// hold renews the promise that this node, id, made to itself as the leader of term, by
// length, also when it leads no more. It returns false when somebody else may lead: it
// has promised, or may have voted, for another since.
func (g *guard) hold(id string, term uint64, length time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to != id || g.pending != 0 || g.floor > term || g.leaving() > 0 {
		return false
	}
	g.until, g.conceded = max(g.until, g.now()+length), false
	return true
}

// binds returns how long a promise still keeps this node from granting a lease to
// another leader.
func (g *guard) binds(leader string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bound(leader)
}

func (g *guard) bound(leader string) time.Duration {
	until := g.notBefore
	if g.to != leader {
		until = max(until, g.until)
	}
	return max(until-g.now(), 0)
}

// bindsVote returns how long a promise still keeps this node from helping candidate.
func (g *guard) bindsVote(candidate string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.boundVote(candidate)
}

func (g *guard) boundVote(candidate string) time.Duration {
	if g.heir == candidate {
		return max(g.notBefore-g.now(), 0)
	}
	return g.bound(candidate)
}

// leaseOver returns when the lease has certainly ended that a promise until then is for: a
// leader counts from when it asked, and takes off what its fence may be late.
func leaseOver(until time.Duration) time.Duration { return until - timing.FenceLateness }

// leaseBinds returns how long, as far as this node knows, the lease runs that it has
// promised to somebody else than candidate.
func (g *guard) leaseBinds(candidate string) time.Duration {
	return max(g.bindsVote(candidate)-timing.FenceLateness, 0)
}

// concede reports whether leaseBinds says 0. Then the promise is not renewed: candidate
// deposes its leader by standing for election, and is to get the votes that wait for its
// end.
func (g *guard) concede(candidate string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.boundVote(candidate) > timing.FenceLateness {
		return false
	}
	g.conceded = g.to != candidate && g.now() >= leaseOver(g.until) // an heir has its votes before
	return true
}

// leaving returns how long a promise goes on that was conceded.
func (g *guard) leaving() time.Duration {
	if !g.conceded {
		return 0
	}
	return max(g.until-g.now(), 0)
}

// wake tells those that wait for a promise to look again.
func (g *guard) wake() {
	if g.freed != nil {
		close(g.freed)
		g.freed = nil
	}
}

// early returns a channel that is closed when its leader's word ends a promise, or
// names an heir.
func (g *guard) early() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.freed == nil {
		g.freed = make(chan struct{})
	}
	return g.freed
}

// beginVote hands the decision on a vote to raft, unless a promise binds: then it
// returns how long, and false.
func (g *guard) beginVote(candidate string, term uint64) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if wait := g.boundVote(candidate); wait > 0 {
		return wait, false
	}
	g.pending = max(g.pending, term)
	return 0, true
}

// endVote notes raft's decision; raftTerm is raft's term after it.
func (g *guard) endVote(term uint64, granted bool, raftTerm uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if granted || raftTerm >= term {
		g.floor = max(g.floor, term)
	}
	if g.pending == term {
		g.pending = 0
	}
}

// voting reports whether raft decides on a vote now.
func (g *guard) voting() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending != 0
}

// release ends the promise made to the leader id, at its own word, which is about term
// and was sent at on its clock. Nobody is left to be succeeded then: the leader chooses
// who follows. A word that is older than the newest promise ends nothing.
func (g *guard) release(id string, term uint64, at time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to == id && (g.term < term || g.term == term && at >= g.asked) {
		g.to, g.heir, g.until = "", "", 0
		g.wake()
	}
}

// disown takes it back that heir may be elected in spite of the promise to the leader id.
func (g *guard) disown(id, heir string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to == id && g.heir == heir {
		g.heir = ""
	}
}

// promised returns the newest promise.
func (g *guard) promised() (to string, until time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.to, g.until
}
