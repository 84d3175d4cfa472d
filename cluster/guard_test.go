package cluster

import (
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/timing"
)

func TestGuard(t *testing.T) {
	const length = 300 * time.Millisecond
	clock := 10 * time.Second
	raftTerm := uint64(1)
	term := func() uint64 { return raftTerm }
	g := guard{now: func() time.Duration { return clock }}
	vote := func(candidate string, of uint64) bool { _, ok := g.beginVote(candidate, of); return ok }

	grant := func(to string, of uint64, heir string) bool {
		_, ok := g.grant(to, of, clock, length, heir, term)
		return ok
	}
	if !grant("a", 1, "") {
		t.Fatal("the first request is refused")
	}
	if vote("b", 2) {
		t.Error("a vote passes while a promise runs")
	}
	if wait, ok := g.beginVote("a", 2); !ok || wait != 0 {
		t.Error("a promise binds against the node that it was made to")
	}
	if grant("a", 1, "") {
		t.Error("term 1 gets a grant while raft decides on a vote of term 2")
	}
	g.endVote(2, true, 2)
	raftTerm = 2
	if grant("a", 1, "") {
		t.Error("term 1 gets a grant after a vote of term 2")
	}
	clock += length
	if !vote("b", 3) {
		t.Fatal("no vote after the promise has ended")
	}
	g.endVote(3, false, 2) // raft refused: nothing happened
	if !grant("a", 2, "") {
		t.Error("a refused vote counts")
	}
	if wait, ok := g.grant("b", 3, clock, length, "", term); ok || wait != length {
		t.Errorf("a leader of a later term while the promise to the former runs: %v, %v", wait, ok)
	}
	// The former leader names its heir: that one may be elected, and no more.
	if !grant("a", 2, "b") || !vote("b", 3) || vote("c", 3) {
		t.Error("the heir gets no vote, or somebody else does")
	}
	g.endVote(3, false, 2)
	if grant("b", 3, "") {
		t.Error("the heir gets a grant while the promise to the former leader runs")
	}
	if !grant("a", 2, "") || vote("b", 3) {
		t.Error("one that is no heir any more gets a vote")
	}
	clock += length
	if !grant("b", 3, "") {
		t.Error("a leader of a later term gets no grant")
	}
	g.release("a", 2, clock)
	if vote("c", 4) {
		t.Error("a former leader can end the promise to another")
	}
	g.release("b", 3, clock-1)
	if vote("c", 4) {
		t.Error("a release that is older than the promise ends it")
	}
	g.release("b", 2, clock)
	if vote("c", 4) {
		t.Error("a release of an older term ends the promise")
	}
	g.release("b", 3, clock)
	if !vote("c", 4) {
		t.Error("no vote after the release")
	}
}

func TestGuardTellsOfARelease(t *testing.T) {
	clock := time.Hour
	g := guard{now: func() time.Duration { return clock }}
	g.grant("a", 1, clock, 300*time.Millisecond, "", func() uint64 { return 1 })
	early := g.early()
	isOver := func() bool {
		select {
		case <-early:
			return true
		default:
			return false
		}
	}
	g.release("b", 1, clock)
	g.release("a", 1, clock-1) // sent before the request
	if isOver() {
		t.Error("told of a release that ended nothing")
	}
	g.release("a", 1, clock)
	if _, ok := g.beginVote("b", 2); !isOver() || !ok {
		t.Errorf("not told, or bound: %t", ok)
	}
	g.endVote(2, false, 1)
	early = g.early()
	if g.grant("a", 1, clock, 300*time.Millisecond, "b", func() uint64 { return 1 }); !isOver() {
		t.Error("not told of an heir")
	}
}

// TestGuardAfterRestart: a former run may have promised anybody until a moment ago.
func TestGuardAfterRestart(t *testing.T) {
	clock := time.Second
	g := guard{now: func() time.Duration { return clock }, notBefore: clock + 300*time.Millisecond}
	if wait, ok := g.beginVote("a", 2); ok || wait != 300*time.Millisecond {
		t.Errorf("a vote right after the start: %v, %v", wait, ok)
	}
	if wait, ok := g.grant("a", 1, clock, time.Millisecond, "", func() uint64 { return 1 }); ok || wait != 300*time.Millisecond {
		t.Errorf("a grant right after the start: %v, %v", wait, ok)
	}
	clock += 300 * time.Millisecond
	if _, ok := g.beginVote("b", 2); !ok {
		t.Error("no vote later on")
	}
}

// TestGuardConcedes: a promise whose lease has ended is not renewed once somebody else is
// to stand for election, and no other one is touched.
func TestGuardConcedes(t *testing.T) {
	const length = 300 * time.Millisecond
	clock := 10 * time.Second
	g := guard{now: func() time.Duration { return clock }}
	grant := func(to, heir string) bool {
		_, ok := g.grant(to, 1, clock, length, heir, func() uint64 { return 1 })
		return ok
	}
	grant("a", "")
	if g.concede("b") || !grant("a", "") {
		t.Error("conceded while the lease runs")
	}
	clock += length - timing.FenceLateness
	if g.leaseBinds("b") != 0 || !g.concede("b") || grant("a", "") || g.hold("a", 1, length) {
		t.Error("not conceded when the lease has ended, or renewed after it")
	}
	clock += timing.FenceLateness
	for range 2 {
		if !g.hold("a", 1, length) {
			t.Error("what was conceded binds a promise that has ended, or was renewed since")
		}
	}
	if !grant("a", "b") || !g.concede("b") || !grant("a", "b") {
		t.Error("an heir that asks for votes ends the lease")
	}
}
