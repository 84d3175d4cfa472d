package cluster

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestJoinsLater(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	propose(t, nodes[0], "before")
	cfg := b.config(4, 0)
	cfg.Join = b.join[:1]
	fourth := b.run(cfg)
	formed(t, append(nodes, fourth)...)
	eventually(t, "the log", func() bool { return fourth.fsm.has("before") })
	propose(t, fourth, "after")
}

func TestNameIsTaken(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	cfg := b.config(4, 0)
	cfg.Node = "d1"
	fourth := b.run(cfg)
	eventually(t, "words", func() bool { return strings.Contains(fourth.State().Waiting, "which is alive") }, fourth)
	for _, r := range nodes {
		eventually(t, "waiter in the list", func() bool {
			for _, m := range r.State().Members {
				if m.ID == fourth.ID() {
					return m.Waiting != ""
				}
			}
			return false
		}, r)
	}
	if err := nodes[0].ReplaceMember(t.Context(), "d1"); !errors.Is(err, ErrRefused) {
		t.Errorf("replacing a live member: %v, want ErrRefused", err)
	}
}

func TestWipedNode(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	for range 2 { // whoever leads is wiped
		leader, rest := leaderOf(nodes...)
		propose(t, leader, "kept")
		leader.kill()
		if err := os.RemoveAll(leader.cfg.DataDir); err != nil {
			t.Fatal(err)
		}
		back := b.run(leader.cfg)
		if back.ID() == leader.ID() {
			t.Fatal("an emptied directory has the old id")
		}
		nodes = append(rest, back)
		formed(t, nodes...)
		eventually(t, "the log", func() bool { return back.fsm.has("kept") })
	}
}

func TestRemovedWhileOn(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	gone, asks := followers[0], followers[1]
	term := leader.State().Term
	if err := asks.RemoveMember(t.Context(), gone.cfg.Node); err != nil {
		t.Fatal(err)
	}
	<-gone.done
	if !errors.Is(gone.err, ErrRemoved) {
		t.Errorf("Run: %v, want ErrRemoved", gone.err)
	}
	cfg := gone.cfg
	if _, err := New(cfg); !errors.Is(err, ErrRemoved) || !strings.Contains(err.Error(), "delete the directory") {
		t.Errorf("New: %v, want ErrRemoved and what to do", err)
	}
	formed(t, leader, asks)
	if got := leader.State().Term; got != term {
		t.Errorf("term %d after the removal, was %d", got, term)
	}
	if err := asks.RemoveMember(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	// With an empty directory it is a new node.
	if err := os.RemoveAll(cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	formed(t, leader, asks, b.run(cfg))
}

// TestRemovedBeforeItNoticed: a node that is removed at once after it became a
// voter may know nothing of that, and asks to join as if it were new.
func TestRemovedBeforeItNoticed(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	gone := followers[0].self()
	if err := leader.RemoveMember(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	_, err := inLead(t.Context(), leader.Node, func(ctx context.Context) (string, error) {
		return leader.admit(ctx, joinRequest{entry: gone})
	})
	if !errors.Is(err, ErrRemoved) {
		t.Errorf("it asks to join: %v, want ErrRemoved", err)
	}
	<-followers[0].done
}

func TestRemovedWhileOff(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	gone := followers[0]
	gone.kill()
	if err := leader.RemoveMember(t.Context(), gone.ID()); err != nil {
		t.Fatal(err)
	}
	term := leader.State().Term
	back := b.run(gone.cfg)
	<-back.done
	if !errors.Is(back.err, ErrRemoved) {
		t.Errorf("Run: %v, want ErrRemoved", back.err)
	}
	if got := leader.State().Term; got != term {
		t.Errorf("term %d after its return, was %d", got, term)
	}
}

// TestRemovalKeepsAQuorum: with one of three down, removing the other follower would
// leave two voters of which one answers.
func TestRemovalKeepsAQuorum(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	followers[0].kill()
	err := leader.RemoveMember(t.Context(), followers[1].ID())
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), followers[0].cfg.Node) {
		t.Fatalf("got %v, want ErrRefused that names %s", err, followers[0].cfg.Node)
	}
	propose(t, leader, "goes on")
	if err := leader.RemoveMember(t.Context(), followers[0].ID()); err != nil {
		t.Errorf("remove the one that is down: %v", err)
	}
}

func TestRemoveTheLeader(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	if err := leader.RemoveMember(t.Context(), leader.cfg.Node); err != nil {
		t.Fatal(err)
	}
	<-leader.done
	if !errors.Is(leader.err, ErrRemoved) {
		t.Errorf("Run: %v, want ErrRemoved", leader.err)
	}
	formed(t, followers...)
	propose(t, followers[0], "goes on")
}

func TestReplace(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	dead := followers[0]
	if err := followers[1].ReplaceMember(t.Context(), dead.cfg.Node); !errors.Is(err, ErrRefused) {
		t.Errorf("nothing waits: %v, want ErrRefused", err)
	}
	dead.kill()
	cfg := b.config(4, 0)
	cfg.Node = dead.cfg.Node
	next := b.run(cfg)
	eventually(t, "words", func() bool { return strings.Contains(next.State().Waiting, "members replace "+cfg.Node) }, next)
	if err := followers[1].ReplaceMember(t.Context(), cfg.Node); err != nil {
		t.Fatal(err)
	}
	formed(t, leader, followers[1], next)
}

func TestAddressChange(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	for i, r := range []*running{followers[0], leader} {
		r.kill()
		moved := b.config(5+i, 3)
		moved.Node, moved.DataDir = r.cfg.Node, r.cfg.DataDir
		back := b.run(moved)
		if back.ID() != r.ID() {
			t.Fatal("the id changed")
		}
		for j := range nodes {
			if nodes[j] == r {
				nodes[j] = back
			}
		}
		formed(t, nodes...)
		for _, n := range nodes {
			eventually(t, "the new address in the configuration", func() bool {
				s, ok := n.server(back.ID())
				return ok && string(s.Address) == moved.advertised()
			}, n)
		}
	}
	propose(t, nodes[0], "still one cluster")
}

func TestCopiedDirectory(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	original := nodes[1]
	eventually(t, "the book", func() bool { _, err := os.Stat(original.book.path); return err == nil })
	cfg := b.config(6, 3)
	if err := os.CopyFS(cfg.DataDir, os.DirFS(original.cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	cfg.Node = original.cfg.Node
	fsm := &list{}
	cfg.FSM, cfg.Applied = fsm, fsm.applied
	clone, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := clone.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is a copy") {
		t.Errorf("Run: %v, want words about a copy", err)
	}
	formed(t, nodes...)
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	cfg := b.config(1, 1)
	fsm := &list{}
	cfg.FSM, cfg.Applied = fsm, fsm.applied
	first, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("got %v, want words about the other process", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Cluster = "other"
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), `belongs to cluster "lb"`) {
		t.Errorf("got %v, want words about the other cluster", err)
	}
}
