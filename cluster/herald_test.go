package cluster

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestFollowersHearOfACommitAtOnce has raft tell its commit index by itself only after a
// second.
func TestFollowersHearOfACommitAtOnce(t *testing.T) {
	const silence = time.Second
	_, nodes := three(t, func(c *Config) {
		c.Profile = Profile{Heartbeat: silence, Election: silence, LeaderLease: silence / 2, Commit: silence, Transport: silence}
	})
	leader, followers := leaderOf(nodes...)
	began := time.Now()
	for i := range 20 {
		command := fmt.Sprintf("command %d", i)
		propose(t, leader, command)
		for _, f := range followers {
			eventually(t, command+" on a follower", func() bool { return f.fsm.has(command) }, nodes...)
		}
	}
	// Half of what a single one of them would have taken. A follower whose answer comes
	// in the wrong moment may have to wait once.
	if took := time.Since(began); took > 20*silence/2 {
		t.Errorf("20 changes reached the followers after %v", took)
	} else {
		t.Logf("20 changes took %v", took)
	}
}

// TestHeraldKeepsToItsTerm: what is committed at an index in a later term may not be
// what a follower took in this one.
func TestHeraldKeepsToItsTerm(t *testing.T) {
	for now, want := range map[uint64]int{3: 1, 4: 0} {
		var told atomic.Int32
		h := herald{
			send: func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
				told.Add(1)
				return nil
			},
			indexes: func() (committed, last, term uint64) { return 7, 7, now },
		}
		h.took("f", "address", &raft.AppendEntriesRequest{Term: 3, Entries: []*raft.Log{{Index: 7, Term: 3}}})
		h.close()
		if got := int(told.Load()); got != want {
			t.Errorf("in term %d it was told %d times, want %d", now, got, want)
		}
	}
}

// TestHeraldTellsWhatWasCommittedMeanwhile: a commit while a follower is being told of
// the one before must not wait for raft.
func TestHeraldTellsWhatWasCommittedMeanwhile(t *testing.T) {
	var committed atomic.Uint64
	committed.Store(7)
	sending, told := make(chan struct{}), make(chan uint64, 9)
	h := herald{
		send: func(_ raft.ServerID, _ raft.ServerAddress, request *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) error {
			told <- request.LeaderCommitIndex
			<-sending
			return nil
		},
		indexes: func() (uint64, uint64, uint64) { i := committed.Load(); return i, i, 3 },
	}
	h.took("f", "address", &raft.AppendEntriesRequest{Term: 3, Entries: []*raft.Log{{Index: 7, Term: 3}}})
	<-told
	committed.Store(8)
	h.took("f", "address", &raft.AppendEntriesRequest{Term: 3, Entries: []*raft.Log{{Index: 8, Term: 3}}})
	close(sending)
	select {
	case got := <-told:
		if got != 8 {
			t.Errorf("told %d, want 8", got)
		}
	case <-time.After(patience):
		t.Error("it was not told")
	}
	h.close()
}
