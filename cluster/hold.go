package cluster

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ipvs-ha/ipvs-ha/timing"
)

// A pair of voters cannot replace one that is lost: nobody is elected without the vote
// of both. That is what makes it safe for the leader to go on without the other, when
// the operator prefers that (Config.Hold): as long as it has voted for nobody else,
// there is no other leader, and while it promises itself its vote, and names no heir,
// there will be none. What it needs of the other voter's grant elsewhere follows here
// from its own promise.

// pair reports whether exactly two vote, this node and another director, and nothing
// else is under way. The configuration must be committed: a voter that has not heard
// of the removal of a third one might be elected with its vote.
func (n *Node) pair() bool {
	voters, self := 0, false
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		e := n.member(s)
		if e.Witness || e.Name == "" { // "": it has never said what it is
			return false
		}
		voters++
		self = self || e.ID == n.id
	}
	if voters != 2 || !self {
		return false
	}
	stats := n.raft.Load().Stats() // raft tells these nowhere else
	latest, err := strconv.ParseUint(stats["latest_configuration_index"], 10, 64)
	if err != nil {
		return false
	}
	committed, err := strconv.ParseUint(stats["commit_index"], 10, 64)
	return err == nil && latest <= committed
}

// holdLease renews the lease of the last term in which this node led on its own word,
// in a pair, and reports whether it could.
func (n *Node) holdLease() bool {
	if !n.cfg.Hold || !n.pair() {
		return false
	}
	l := &n.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mayHold() {
		return false
	}
	length := n.cfg.Profile.Lease
	until := n.cfg.Now() + length - length/timing.Drift - timing.FenceLateness
	if !n.guard.hold(n.id, l.term, length) {
		return false
	}
	if until > l.until {
		l.until = until
		n.tenures.leased(n.cfg.Now())
		n.tellLease(until)
	}
	return true
}

// tellHolding logs that this node begins or ceases to hold.
func (n *Node) tellHolding(holds bool) {
	if holds {
		n.log.Warn("the other voter cannot be reached; this node holds the lease without a quorum")
	} else {
		n.log.Info("this node does not hold the lease without a quorum any more")
	}
	n.cfg.OnChange()
}

// mayHold reports whether there is a lease to go on with.
func (l *lease) mayHold() bool { return l.until != 0 && !l.released && !l.grows && !l.over }

// holds reports whether this node, which does not lead, goes on as the holder of a
// lease.
func (n *Node) holds() bool {
	if !n.cfg.Hold || !n.pair() {
		return false
	}
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	return n.lease.mayHold() && n.guard.hold(n.id, n.lease.term, 0)
}

// endHold has the lease of this term rest on the voters' grants alone, and returns when
// what this node gave itself has run out: with a third voter the other two can elect
// a leader.
func (n *Node) endHold(ctx context.Context) {
	if !n.cfg.Hold || !n.pair() {
		return
	}
	n.lease.mu.Lock()
	n.lease.grows = true
	n.lease.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(n.cfg.Profile.Lease):
	}
}

// resumeHold is the end of endHold, after the change that ended with err: one whose
// outcome is unknown may still come.
func (n *Node) resumeHold(err error) {
	if err == nil || errors.Is(err, errAgain) {
		n.lease.mu.Lock()
		n.lease.grows = false
		n.lease.mu.Unlock()
	}
}
