package cluster

import (
	"sync"
	"time"
)

// A guard keeps this node's promises as a voter. A voter that grants a leader's
// lease request promises not to help anybody else become leader for the lease's
// length. All decisions about grants and votes are made under its one mutex, so that
// of two that exclude each other one comes first:
//
// A leader of a later term needs the votes of a majority, and a lease needs the
// grants of one. Some voter is in both. If it granted first, its promise was over
// when it voted, and the lease ended before that promise; if it voted first, it
// grants no leader of an older term any more.
type guard struct {
	now func() time.Duration // boot time

	mu        sync.Mutex
	to        string        // whom the newest promise was made to; "" nobody
	until     time.Duration // its end
	asked     time.Duration // when the request for it was sent, on the leader's clock
	notBefore time.Duration // no vote before: a former run may have promised until then
	floor     uint64        // no grant to a leader of an older term
	pending   uint64        // the term of the vote that raft decides on now; 0 = none
	freed     chan struct{} // closed when a promise ends early; nil: nobody waits
}

// grant answers a lease request of the leader to in term. raftTerm reads raft's own
// term, which is on disk before a vote is answered. asked is when the request was
// sent, on the leader's clock.
func (g *guard) grant(to string, term uint64, asked, length time.Duration, raftTerm func() uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if term < g.pending || term < g.floor || term < raftTerm() {
		return false
	}
	if g.to != to {
		g.asked = 0
	}
	g.to, g.until, g.asked = to, g.now()+length, max(g.asked, asked)
	return true
}

// hold renews the promise that this node, id, made to itself as the leader of term, by
// length, also when it leads no more. It returns false when somebody else may lead: it
// has promised, or may have voted, for another since.
func (g *guard) hold(id string, term uint64, length time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to != id || g.pending != 0 || g.floor > term {
		return false
	}
	g.until = max(g.until, g.now()+length)
	return true
}

// binds returns how long a promise still keeps this node from helping candidate.
func (g *guard) binds(candidate string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bound(candidate)
}

func (g *guard) bound(candidate string) time.Duration {
	until := g.notBefore
	if g.to != candidate {
		until = max(until, g.until)
	}
	return max(until-g.now(), 0)
}

// early returns a channel that is closed when a promise ends at its leader's word.
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
	if wait := g.bound(candidate); wait > 0 {
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

// release ends the promise made to the leader id, at its own word, which was sent at
// on its clock. Nobody is left to be succeeded then: the leader chooses who follows.
// A word that comes late, after the leader has asked again because the transfer came
// to nothing, ends nothing.
func (g *guard) release(id string, at time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.to == id && at >= g.asked {
		g.to, g.until = "", 0
		if g.freed != nil {
			close(g.freed)
			g.freed = nil
		}
	}
}

// promised returns the newest promise.
func (g *guard) promised() (to string, until time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.to, g.until
}
