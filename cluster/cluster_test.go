package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestWritesAndReadsOnAnyNode(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	for i, r := range nodes {
		cmd := fmt.Sprintf("write %d", i)
		index := propose(t, r, cmd)
		for _, reader := range nodes {
			read, err := reader.ReadIndex(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if read < index {
				t.Errorf("%s reads index %d after %d was committed", reader.cfg.Node, read, index)
			}
		}
		for _, r := range nodes {
			eventually(t, cmd, func() bool { return r.fsm.has(cmd) })
		}
	}
}

func TestCommandSize(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, func(c *Config) {
		// The race detector looks at each byte, which takes it a second or two.
		c.Profile.Heartbeat, c.Profile.Election, c.Profile.LeaderLease = 3*time.Second, 3*time.Second, 3*time.Second
		c.Profile.Transport = 5 * time.Second
	})
	_, followers := leaderOf(nodes...)
	big := strings.Repeat("x", MaxCommand)
	if _, _, err := followers[0].Propose(t.Context(), []byte(big)); err != nil {
		t.Errorf("the largest command: %v", err)
	}
	if _, _, err := followers[0].Propose(t.Context(), []byte(big+"x")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a larger command: %v, want ErrTooLarge", err)
	}
	if _, err := followers[0].Call(t.Context(), nodes[0].ID(), "echo", []byte(big+big)); nodes[0] != followers[0] && !errors.Is(err, ErrTooLarge) {
		t.Errorf("a larger call: %v, want ErrTooLarge", err)
	}
}

func TestCallReachesEveryMember(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, func(c *Config) {
		c.Handler = func(_ context.Context, from, method string, body []byte) ([]byte, error) {
			if method == "fail" {
				return nil, errors.New("as asked")
			}
			return []byte(c.Node + " " + method + " " + string(body) + " " + from), nil
		}
	})
	for _, caller := range nodes {
		for _, m := range caller.State().Members {
			got, err := caller.Call(t.Context(), m.ID, "echo", []byte("body"))
			if want := m.Name + " echo body " + caller.ID(); err != nil || string(got) != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
			if _, err := caller.Call(t.Context(), m.ID, "fail", nil); err == nil || !strings.Contains(err.Error(), "as asked") {
				t.Errorf("got %v, want the handler's words", err)
			}
		}
	}
}

func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	propose(t, nodes[0], "before")
	leader, rest := leaderOf(nodes...)
	leader.kill()
	// The same call finds the next leader.
	propose(t, rest[0], "after")
	for _, m := range rest[1].State().Members {
		if m.Name == "" {
			t.Errorf("a dead member has lost its name: %+v", m)
		}
	}
	eventually(t, "dead member unreachable", func() bool {
		for _, m := range rest[0].State().Members {
			if m.ID == leader.ID() {
				return !m.Reachable
			}
		}
		return false
	})
	back := b.run(leader.cfg)
	if back.ID() != leader.ID() {
		t.Errorf("id %s after a restart, was %s", back.ID(), leader.ID())
	}
	formed(t, append(rest, back)...)
	eventually(t, "caught up", func() bool { return back.fsm.has("after") })
}

// TestSilentLeader: requests to a leader whose host has vanished end when it no
// longer leads, not with their own deadline.
func TestSilentLeader(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	id := leader.ID()
	asks := followers[0]
	asks.silent.Store(&id)
	asks.dropIdle()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	asking := make(chan struct{}, 2)
	wg.Go(func() {
		asking <- struct{}{}
		if _, err := asks.ReadIndex(ctx); err != nil {
			t.Errorf("read: %v, want the next leader's answer", err)
		}
	})
	wg.Go(func() {
		asking <- struct{}{}
		if _, _, err := asks.Propose(ctx, []byte("lost")); err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("write: %v, want ErrUnknown", err)
		}
	})
	<-asking
	<-asking
	leader.kill()
}

func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	for _, r := range followers {
		r.cut()
	}
	// The leader takes the command into its log, but nobody confirms it.
	_, _, err := leader.Propose(t.Context(), []byte("maybe"))
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNoLeader) {
		t.Fatalf("got %v, want ErrUnknown or, when it had stepped down before, ErrNoLeader", err)
	}
	_, _, err = followers[0].Propose(t.Context(), []byte("never"))
	if !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknown) {
		t.Fatalf("got %v, want ErrNoLeader", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := leader.ReadIndex(ctx); !errors.Is(err, ErrNoLeader) {
		t.Errorf("a read without a majority: %v, want ErrNoLeader", err)
	}
}

func TestSlowStateMachineDoesNotHoldTheCaller(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	gate := make(chan struct{})
	leader.fsm.mu.Lock()
	leader.fsm.gate = gate
	leader.fsm.mu.Unlock()
	defer close(gate)
	for _, r := range []*running{leader, followers[0]} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		_, _, err := r.Propose(ctx, []byte("slow"))
		cancel()
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("got %v, want ErrUnknown", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %v after its context ended", took)
		}
	}
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	if err := followers[1].Transfer(t.Context(), followers[0].cfg.Node); err != nil {
		t.Fatal(err)
	}
	if got := followers[1].State().LeaderName; got != followers[0].cfg.Node {
		t.Errorf("leader %s, want %s", got, followers[0].cfg.Node)
	}
	if err := leader.Transfer(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := leader.Transfer(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	propose(t, leader, "still works")
	// A leader that stops gives leadership away: nobody waits for an election.
	formed(t, nodes...)
	leader, followers = leaderOf(nodes...)
	term := leader.State().Term
	leader.stop()
	eventually(t, "new leader", func() bool {
		s := followers[0].State()
		return s.Term > term && s.Leader != "" && s.Leader != leader.ID()
	})
	if got := followers[0].State().Term; got != term+1 {
		t.Errorf("term %d after a planned stop in term %d", got, term)
	}
}

func TestWitnessGivesLeadershipAway(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	var nodes []*running
	for i := range 3 {
		cfg := b.config(i+1, 3)
		cfg.Witness = i == 2
		nodes = append(nodes, b.run(cfg))
	}
	formed(t, nodes...)
	witness := nodes[2]
	eventually(t, "a director leads", func() bool { s := nodes[0].State(); return s.Leader != "" && s.Leader != witness.ID() }, nodes...)
	if err := nodes[0].Transfer(t.Context(), "d3"); !errors.Is(err, ErrRefused) {
		t.Errorf("transfer to a witness: %v, want ErrRefused", err)
	}
	leader, followers := leaderOf(nodes...)
	leader.kill()
	eventually(t, "the other director leads", func() bool {
		s := witness.State()
		return s.Leader != "" && s.Leader != witness.ID() && s.Leader != leader.ID()
	}, followers...)
}

func TestSnapshotInstall(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	small := func(n *Node) {
		n.raftCfg.SnapshotThreshold, n.raftCfg.TrailingLogs, n.raftCfg.SnapshotInterval = 500, 100, 20*time.Millisecond
	}
	var nodes []*running
	for i := range 3 {
		nodes = append(nodes, b.run(b.config(i+1, 3), small))
	}
	formed(t, nodes...)
	leader, followers := leaderOf(nodes...)
	behind := followers[0]
	behind.kill()
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < 10_000; i += 64 {
				insist(t, leader, strconv.Itoa(i))
			}
		})
	}
	wg.Wait()
	back := b.run(behind.cfg, small)
	eventually(t, "caught up by snapshot", func() bool {
		got := back.fsm.get()
		return len(got) >= 10_000 && slices.Equal(got, leader.fsm.get())
	}, back, leader)
	formed(t, leader, followers[1], back)
}

func TestOtherClusterIsRefused(t *testing.T) {
	t.Parallel()
	var refusals lockedBuffer
	b := newBed(t, 2)
	first := b.run(func() Config {
		c := b.config(1, 1)
		c.Logger = slog.New(slog.NewTextHandler(&refusals, nil))
		return c
	}())
	formed(t, first)
	other := b.config(2, 0)
	other.Cluster = "another"
	stranger := b.run(other)
	eventually(t, "refused", func() bool { return strings.Contains(refusals.String(), "connection refused") })
	eventually(t, "waiting", func() bool { return strings.Contains(stranger.State().Waiting, "no cluster answers") }, stranger)
	if n := strings.Count(refusals.String(), "connection refused"); n != 1 {
		t.Errorf("%d log lines about one peer:\n%s", n, refusals.String())
	}
	// The same name but another cluster: neither side talks raft to the other.
	b2 := newBed(t, 1)
	twin := b2.run(b2.config(1, 1))
	formed(t, twin)
	_, _, err := first.port.dial(t.Context(), twin.cfg.advertised(), preface{
		Cluster: "lb", ClusterID: first.identity.get().ClusterID, ID: first.id, Address: first.cfg.advertised(), Stream: streamRaft,
	})
	if !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
}
