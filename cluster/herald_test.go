package cluster

import (
	"fmt"
	"testing"
	"time"
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
