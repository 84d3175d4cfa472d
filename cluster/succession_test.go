package cluster

import (
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ipvs-ha/ipvs-ha/boottime"
	"github.com/ipvs-ha/ipvs-ha/timing"
)

// A stopwatch is the boot time, until it is set: then it stands.
type stopwatch struct{ at atomic.Int64 }

func (w *stopwatch) now() time.Duration {
	if at := w.at.Load(); at != 0 {
		return time.Duration(at)
	}
	return boottime.Now()
}

func (w *stopwatch) set(at time.Duration) { w.at.Store(int64(at)) }

// unhurried leaves time for what is to happen before raft's own timers, which go by
// another clock, call an election.
var unhurried = Profile{
	Lease: 900 * time.Millisecond, Heartbeat: 2500 * time.Millisecond, Election: 2500 * time.Millisecond,
	LeaderLease: 1200 * time.Millisecond, Transport: 2500 * time.Millisecond, Stagger: 50 * time.Millisecond, Commit: 5 * time.Millisecond,
}

// bereft returns the followers d2 and d3 of a leader that was cut off, whose clocks stand
// since a moment before.
func bereft(t *testing.T, w *watch, nodes []*running, clocks map[string]*stopwatch) (former, d2, d3 *running) {
	t.Helper()
	if name := nodes[0].cfg.Node; name != "d1" {
		if err := nodes[0].Transfer(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		awaitHolder(t, w, name, nodes)
	}
	former, others := leaderOf(nodes...)
	d2, d3 = others[0], others[1]
	if d2.cfg.Node != "d2" {
		d2, d3 = d3, d2
	}
	eventually(t, "promises of all, with one log", func() bool {
		for _, r := range others {
			clocks[r.cfg.Node].set(0)
			clocks[r.cfg.Node].set(boottime.Now())
			to, until := r.guard.promised()
			if to != former.ID() || until < r.cfg.Now()+unhurried.Lease/2 || r.raft.Load().LastIndex() != former.raft.Load().LastIndex() {
				return false
			}
		}
		return true
	}, nodes...)
	former.cut()
	return former, d2, d3
}

// TestStandsWhenTheLeaseIsOver, which is before the promises end: it has no vote before
// that, and no lease.
func TestStandsWhenTheLeaseIsOver(t *testing.T) {
	t.Parallel()
	clocks := map[string]*stopwatch{"d1": {}, "d2": {}, "d3": {}}
	var stood atomic.Int32
	_, w, nodes := leased(t, func(c *Config) {
		c.Profile = unhurried
		c.Now, c.NoSuccession = clocks[c.Node].now, c.Node != "d2"
		if c.Node == "d2" {
			c.OnStand = func() { stood.Add(1) }
			c.Fitness = func() Fitness { return Fitness{Preference: MaxPreference} } // its turn is first
		}
	})
	former, heir, voter := bereft(t, w, nodes, clocks)
	others := []*running{heir, voter}
	stood.Store(0)
	_, until := voter.guard.promised()
	clocks["d3"].set(until - timing.FenceLateness)
	_, until = heir.guard.promised()
	clocks["d2"].set(until - timing.FenceLateness - time.Microsecond)
	if next := heir.succeedLeader(t.Context()); next != time.Microsecond || stood.Load() != 0 {
		t.Errorf("while the lease runs: %v, it stood %d times", next, stood.Load())
	}
	clocks["d2"].set(until - timing.FenceLateness)
	eventually(t, "it stands", func() bool { return stood.Load() == 1 && heir.State().Stands }, others...)
	if heir.isLeader() {
		t.Error("it is elected while the promise of the other voter binds")
	}
	clocks["d3"].set(0)
	eventually(t, "the grant of the other voter", func() bool {
		heir.lease.mu.Lock()
		defer heir.lease.mu.Unlock()
		_, granted := heir.lease.granted[voter.ID()]
		return heir.isLeader() && heir.lease.term == heir.State().Term && granted
	}, others...)
	heir.renewLease(heir.State().Term)
	heir.lease.mu.Lock()
	if heir.lease.until != 0 {
		t.Error("a lease while its own promise to the former leader binds")
	}
	heir.lease.mu.Unlock()
	clocks["d2"].set(0)
	awaitHolder(t, w, former.cfg.Node, others)
}

// TestAVoterAgreesWhenTheLeaseIsOver, and else says when that is. The promise is kept to
// its end then, and not renewed.
func TestAVoterAgreesWhenTheLeaseIsOver(t *testing.T) {
	t.Parallel()
	clocks := map[string]*stopwatch{"d1": {}, "d2": {}, "d3": {}}
	_, w, nodes := leased(t, func(c *Config) {
		c.Profile, c.NoSuccession, c.Now = unhurried, true, clocks[c.Node].now
	})
	former, asker, voter := bereft(t, w, nodes, clocks)
	_, until := voter.guard.promised()
	term := voter.State().Term
	r := voter.raft.Load()
	request, _ := json.Marshal(pollRequest{Term: r.CurrentTerm(), LastIndex: r.LastIndex(), LastTerm: lastLogTerm(r)})
	poll := func() (answer pollAnswer) {
		t.Helper()
		body, err := voter.answerPoll(asker.ID(), request)
		if err == nil {
			err = json.Unmarshal(body, &answer)
		}
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	renew := func() (wait time.Duration, ok bool) {
		return voter.guard.grant(former.ID(), term, voter.cfg.Now(), unhurried.Lease, "", voter.raft.Load().CurrentTerm)
	}
	clocks["d3"].set(until - timing.FenceLateness - time.Millisecond)
	if answer := poll(); answer.Free || answer.Wait != time.Millisecond {
		t.Errorf("while the lease runs: %+v", answer)
	}
	time.AfterFunc(30*time.Millisecond, func() { clocks["d3"].set(until - timing.FenceLateness) })
	if answer := asker.askPoll(t.Context(), raft.Server{ID: raft.ServerID(voter.ID())}, request); !answer.Free {
		t.Errorf("when it ends while somebody waits for it: %+v", answer)
	}
	if answer := poll(); !answer.Free {
		t.Errorf("when it has ended: %+v", answer)
	}
	if wait, ok := voter.guard.beginVote(asker.ID(), term+1); ok || wait != timing.FenceLateness {
		t.Errorf("a vote then: %v, %v", wait, ok)
	}
	if wait, ok := renew(); ok || wait != timing.FenceLateness {
		t.Errorf("the former leader then: %v, %v", wait, ok)
	}
	clocks["d3"].set(until)
	if _, ok := renew(); !ok {
		t.Error("the former leader gets no grant after the end of its promise, though nobody else has asked for a vote")
	}
	clocks["d3"].set(until + unhurried.Lease/2)
	if _, ok := renew(); !ok {
		t.Error("the former leader gets no grant while its promise runs")
	}
}
