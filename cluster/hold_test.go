package cluster

import (
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

// pair returns a formed cluster of two that hold, the one with the lease first.
func pair(t *testing.T, tweaks ...func(*Config)) (*bed, *watch, []*running) {
	t.Helper()
	w := &watch{t: t, until: map[string]time.Duration{}}
	b := newBed(t, 2)
	var nodes []*running
	for i := range 2 {
		cfg := b.config(i+1, 2)
		cfg.Profile, cfg.Hold = leaseProfile, true
		for _, tweak := range tweaks {
			tweak(&cfg)
		}
		w.see(&cfg)
		nodes = append(nodes, b.run(cfg))
	}
	formed(t, nodes...)
	awaitHolder(t, w, "", nodes)
	leader, followers := leaderOf(nodes...)
	return b, w, []*running{leader, followers[0]}
}

// TestPairHolds cuts the link of a pair: the one that had the lease keeps it, and leads
// again when the other one is back.
func TestPairHolds(t *testing.T) {
	t.Parallel()
	_, w, nodes := pair(t)
	holder, other := nodes[0], nodes[1]
	term := holder.State().Term
	for range 2 {
		holder.cut()
		other.cut()
		eventually(t, "it leads no more and holds", func() bool { s := holder.State(); return !s.IsLeader && s.Holds }, nodes...)
		began := boottime.Now()
		eventually(t, "it holds for longer than any promise lasts", func() bool {
			node, _ := w.held()
			return node == holder.cfg.Node && boottime.Now() > began+5*leaseProfile.Lease
		}, nodes...)
		holder.isCut.Store(false)
		other.isCut.Store(false)
		eventually(t, "it leads again", func() bool { s := holder.State(); return s.IsLeader && !s.Holds && s.Term > term }, nodes...)
		term = holder.State().Term
		propose(t, other, "goes on")
		eventually(t, "its lease by grants", func() bool {
			holder.lease.mu.Lock()
			defer holder.lease.mu.Unlock()
			return holder.lease.term == term && holder.lease.until > boottime.Now()
		})
	}
	if n := w.count(); n != 1 {
		t.Errorf("%d holders, want one", n)
	}
}

// TestRestartedHolderHoldsNoMore: it does not know what it voted for since.
func TestRestartedHolderHoldsNoMore(t *testing.T) {
	t.Parallel()
	b, w, nodes := pair(t)
	holder, other := nodes[0], nodes[1]
	other.cut()
	holder.kill()
	eventually(t, "the end of the lease", func() bool { node, _ := w.held(); return node == "" })
	back := b.run(holder.cfg)
	for _, r := range []*running{other, back} {
		eventually(t, "it stands for election in vain", func() bool { return r.State().Raft == "candidate" }, r)
	}
	if node, _ := w.held(); node != "" || back.State().Holds || other.State().Holds || w.count() != 1 {
		t.Errorf("%q holds a lease without the other; %d holders so far", node, w.count())
	}
	other.isCut.Store(false)
	formed(t, back, other)
	awaitHolder(t, w, "", []*running{back, other})
}

// TestThreeDoNotHold: what two votes can decide without it, one of three cannot hold.
// The third comes in while the pair works.
func TestThreeDoNotHold(t *testing.T) {
	t.Parallel()
	b, w, nodes := pair(t)
	cfg := b.config(3, 0)
	cfg.Profile, cfg.Hold = leaseProfile, true
	w.see(&cfg)
	nodes = append(nodes, b.run(cfg))
	formed(t, nodes...)
	former, _ := w.held()
	eventually(t, "a lease", func() bool { former, _ = w.held(); return former != "" })
	for _, r := range nodes {
		if r.cfg.Node == former {
			r.cut()
		}
	}
	awaitHolder(t, w, former, nodes)
}

// TestPairMoves: what is given away on purpose is not held.
func TestPairMoves(t *testing.T) {
	t.Parallel()
	_, w, nodes := pair(t)
	if err := nodes[0].Transfer(t.Context(), nodes[1].cfg.Node); err != nil {
		t.Fatal(err)
	}
	awaitHolder(t, w, nodes[0].cfg.Node, nodes)
	nodes[0].cut()
	nodes[1].cut()
	eventually(t, "the new one holds", func() bool { return nodes[1].State().Holds }, nodes...)
	if nodes[0].State().Holds {
		t.Error("so does the one that gave it away")
	}
}

// TestAHolderGivesUpWhatItHeld: it leads again, but is less fit than the other, so that
// it gives leadership away without a lease of this term. What it still has from before
// must be taken back first.
func TestAHolderGivesUpWhatItHeld(t *testing.T) {
	t.Parallel()
	c := &clinic{fitness: map[string]Fitness{}}
	_, w, nodes := pair(t, func(cfg *Config) { cfg.Fitness = c.of(cfg.Node) })
	holder, other := nodes[0], nodes[1]
	holder.cut()
	other.cut()
	eventually(t, "it holds", func() bool { return holder.State().Holds }, nodes...)
	c.set(holder.cfg.Node, 4)
	holder.isCut.Store(false)
	other.isCut.Store(false)
	awaitHolder(t, w, holder.cfg.Node, nodes)
}

// TestAHolderHasNoHeir: the one that it had chosen before they were cut off may have its
// vote no more.
func TestAHolderHasNoHeir(t *testing.T) {
	t.Parallel()
	_, _, nodes := pair(t)
	holder, other := nodes[0], nodes[1]
	p := holder.beginPass(t.Context(), holder.book.get(other.ID()), "a test")
	holder.cut()
	other.cut()
	eventually(t, "it holds", func() bool { return holder.State().Holds }, nodes...)
	if holder.guard.bindsVote(other.ID()) > 0 {
		t.Error("the heir gets no vote")
	}
	holder.endPass(p)
	if holder.guard.bindsVote(other.ID()) == 0 {
		t.Error("one that is no heir any more gets a vote")
	}
}

func TestGuardHold(t *testing.T) {
	raftTerm := func() uint64 { return 3 }
	for name, tt := range map[string]struct {
		since func(g *guard, now *time.Duration)
		want  bool
	}{
		"nothing":            {func(*guard, *time.Duration) {}, true},
		"a long time":        {func(_ *guard, now *time.Duration) { *now += time.Hour }, true},
		"a vote under way":   {func(g *guard, now *time.Duration) { *now += time.Hour; g.beginVote("other", 4) }, false},
		"a vote for another": {func(g *guard, now *time.Duration) { *now += time.Hour; g.beginVote("other", 4); g.endVote(4, true, 4) }, false},
		"a refused old vote": {func(g *guard, now *time.Duration) { *now += time.Hour; g.beginVote("other", 3); g.endVote(3, false, 3) }, true},
		"a promise elsewhere": {func(g *guard, now *time.Duration) {
			*now += time.Hour
			g.grant("other", 4, *now, time.Second, "", raftTerm)
		}, false},
		"a release": {func(g *guard, now *time.Duration) { g.release("self", 3, *now) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Second
			g := guard{now: func() time.Duration { return now }}
			g.grant("self", 3, now, 100*time.Millisecond, "", raftTerm)
			tt.since(&g, &now)
			if got := g.hold("self", 3, time.Second); got != tt.want {
				t.Fatalf("hold: %t, want %t", got, tt.want)
			}
			if tt.want && g.binds("other") != time.Second {
				t.Errorf("bound for %v against another, want a second", g.binds("other"))
			}
		})
	}
}
