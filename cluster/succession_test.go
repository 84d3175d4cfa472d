package cluster

import (
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

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

// lastPromise kills the leader while the clock of a voter stands, and returns until when
// that one has promised.
func lastPromise(t *testing.T, voter, leader *running, clock *stopwatch) time.Duration {
	t.Helper()
	promised := func() bool { to, _ := voter.guard.promised(); return to == leader.ID() }
	eventually(t, "a promise", promised, voter, leader)
	clock.set(boottime.Now())
	leader.kill()
	_, until := voter.guard.promised()
	if !promised() || leaseOver(until) <= clock.now() {
		t.Fatalf("promised until %v, now %v", until, clock.now())
	}
	return until
}

// TestStandsWhenTheLeaseIsOver, which is before the promise ends; it has no lease before
// that has ended too.
func TestStandsWhenTheLeaseIsOver(t *testing.T) {
	t.Parallel()
	const heir = "d2"
	slow := Profile{
		Lease: time.Second, Heartbeat: 3 * time.Second, Election: 3 * time.Second, LeaderLease: 1200 * time.Millisecond,
		Transport: 3 * time.Second, Stagger: 50 * time.Millisecond, Commit: 5 * time.Millisecond,
	}
	var clock stopwatch
	var stood atomic.Int32
	_, w, nodes := leased(t, func(c *Config) {
		c.Profile = slow // raft's own timers call no election
		c.NoSuccession = c.Node != heir
		if c.Node == heir {
			c.Now, c.OnStand = clock.now, func() { stood.Add(1) }
			c.Fitness = func() Fitness { return Fitness{Preference: MaxPreference} } // its turn is first
		}
	})
	if nodes[0].cfg.Node == heir {
		if err := nodes[0].Transfer(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		awaitHolder(t, w, heir, nodes)
	}
	leader, others := leaderOf(nodes...)
	r, voter := others[0], others[1]
	if r.cfg.Node != heir {
		r, voter = voter, r
	}
	stood.Store(0)
	until := lastPromise(t, r, leader, &clock)
	clock.set(leaseOver(until) - time.Millisecond)
	eventually(t, "the end of the other voter's promise", func() bool { return voter.guard.bindsVote(r.ID()) == 0 }, others...)
	if n := stood.Load(); n != 0 {
		t.Error("it stands while the lease runs")
	}
	clock.set(leaseOver(until))
	eventually(t, "it stands", func() bool { return stood.Load() == 1 }, others...)
	eventually(t, "the grant of the other voter", func() bool {
		r.lease.mu.Lock()
		defer r.lease.mu.Unlock()
		_, granted := r.lease.granted[voter.ID()]
		return r.isLeader() && r.lease.term == r.State().Term && granted
	}, others...)
	r.renewLease(r.State().Term)
	r.lease.mu.Lock()
	if r.lease.until != 0 {
		t.Error("a lease while its own promise to the former leader binds")
	}
	r.lease.mu.Unlock()
	clock.set(0)
	awaitHolder(t, w, leader.cfg.Node, others)
}

// TestAVoterAgreesWhenTheLeaseIsOver, and else says when that is. A vote waits for the end
// of the promise.
func TestAVoterAgreesWhenTheLeaseIsOver(t *testing.T) {
	t.Parallel()
	var clock stopwatch
	_, _, nodes := leased(t, func(c *Config) {
		c.NoSuccession = true
		if c.Node == "d3" {
			c.Now = clock.now
		}
	})
	if nodes[0].cfg.Node == "d3" {
		if err := nodes[0].Transfer(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
		formed(t, nodes...)
	}
	leader, others := leaderOf(nodes...)
	asker, voter := others[0], others[1]
	if voter.cfg.Node != "d3" {
		asker, voter = voter, asker
	}
	until := lastPromise(t, voter, leader, &clock)
	poll := func() (answer pollAnswer) {
		t.Helper()
		r := voter.raft.Load()
		request, _ := json.Marshal(pollRequest{Term: r.CurrentTerm(), LastIndex: r.LastIndex(), LastTerm: lastLogTerm(r)})
		body, err := voter.answerPoll(asker.ID(), request)
		if err == nil {
			err = json.Unmarshal(body, &answer)
		}
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	clock.set(leaseOver(until) - time.Millisecond)
	if answer := poll(); answer.Free || answer.Wait != time.Millisecond {
		t.Errorf("while the lease runs: %+v", answer)
	}
	clock.set(leaseOver(until))
	if answer := poll(); !answer.Free {
		t.Errorf("when it has ended: %+v", answer)
	}
	if wait, ok := voter.guard.beginVote(asker.ID(), voter.State().Term+1); ok || wait != timing.FenceLateness {
		t.Errorf("a vote then: %v, %v", wait, ok)
	}
}
