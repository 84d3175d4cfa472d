package cluster

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A clinic says how fit each node of a bed is.
type clinic struct {
	mu      sync.Mutex
	fitness map[string]Fitness // by name
}

func (c *clinic) set(node string, class int, reasons ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fitness[node]
	f.Class, f.Reasons = class, reasons
	c.fitness[node] = f
}

func (c *clinic) of(node string) func() Fitness {
	return func() Fitness {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.fitness[node]
	}
}

// examined returns a formed cluster of three with a lease, its leader first, whose
// fitness the clinic says.
func examined(t *testing.T, tweak func(*Config)) (*clinic, *watch, []*running) {
	t.Helper()
	c := &clinic{fitness: map[string]Fitness{}}
	_, w, nodes := leased(t, func(cfg *Config) {
		cfg.Fitness = c.of(cfg.Node)
		if tweak != nil {
			tweak(cfg)
		}
	})
	return c, w, nodes
}

// learned waits until every node has said to the leader, and heard from it, of what
// class each follower is.
func learned(t *testing.T, leader *running, followers ...*running) {
	t.Helper()
	eventually(t, "the fitness of all is known", func() bool {
		for _, f := range followers {
			want := f.cfg.Fitness()
			if said, ok := leader.report(f.ID()); !ok || said.Class != want.Class || said.Preference != want.Preference {
				return false
			}
			for _, o := range followers {
				if told := o.told.Load(); told == nil || (*told)[f.ID()].Class != want.Class || (*told)[f.ID()].Preference != want.Preference {
					return false
				}
			}
		}
		return true
	})
}

func (w *watch) holders() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.all...)
}

func TestFitnessOrder(t *testing.T) {
	best := []Fitness{{Preference: 60}, {Preference: 50}, {Class: 1, Preference: 100}, {Class: 2}, {Class: MaxClass, Preference: 1}}
	for i, a := range best {
		for j, b := range best {
			if got := comesFirst(a, "x", b, "x"); got != (i < j) {
				t.Errorf("%+v before %+v: %t", a, b, got)
			}
		}
	}
	if !comesFirst(Fitness{}, "a", Fitness{}, "b") || comesFirst(Fitness{}, "b", Fitness{}, "a") {
		t.Error("of equals the lower id comes first")
	}
}

func TestFitnessIsBounded(t *testing.T) {
	f := Fitness{Class: 1 << 20, Preference: -3, Reasons: []string{strings.Repeat("ä", maxReason), "a\xffb"}}
	for range 2 * maxReasons {
		f.Reasons = append(f.Reasons, "x")
	}
	f = f.bounded()
	if f.Class != classWitness || f.Preference != 0 || len(f.Reasons) != maxReasons || len(f.Reasons[0]) > maxReason || f.Reasons[1] != "ab" {
		t.Errorf("%+v", f)
	}
}

// TestGauge: worse at once, better after a while without a relapse.
func TestGauge(t *testing.T) {
	g := gauge{steady: 3 * time.Second}
	for _, step := range []struct {
		at      time.Duration // seconds
		class   int
		told    int
		changed bool
	}{
		{10, 7, 7, false},
		{11, 1, 7, true},
		{12, 7, 7, true},
		{13, 1, 7, true},
		{14, 0, 7, true},
		{15, 0, 0, true},
		{16, 4, 4, true},
		{17, 5, 5, true},
		{18, 5, 5, false},
		{20, 0, 5, true},
		{21, 0, 0, false},
	} {
		f := Fitness{Class: step.class, Preference: int(step.at)}
		told, changed := g.look(f, step.at*time.Second)
		if told.Class != step.told || told.Preference != int(step.at) {
			t.Errorf("at %d: told %+v, want class %d", step.at, told, step.told)
		}
		if step.at != 15 && step.at != 21 && changed != step.changed {
			t.Errorf("at %d: changed %t", step.at, changed)
		}
	}
}

// TestTheFittestSucceeds loses the leader. The follower with the lower id would be
// first in the order of ids.
func TestTheFittestSucceeds(t *testing.T) {
	t.Parallel()
	for name, unfit := range map[string]Fitness{
		"class":      {Class: 2, Preference: 90},
		"preference": {Preference: 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, w, nodes := examined(t, nil)
			first, second := nodes[1], nodes[2]
			if first.ID() > second.ID() {
				first, second = second, first
			}
			c.mu.Lock()
			c.fitness[first.cfg.Node], c.fitness[second.cfg.Node] = unfit, Fitness{Preference: 50}
			c.mu.Unlock()
			learned(t, nodes[0], first, second)
			nodes[0].kill()
			awaitHolder(t, w, nodes[0].cfg.Node, nodes[1:])
			if got := w.holders(); len(got) != 2 || got[1] != second.cfg.Node {
				t.Errorf("the lease went to %v, want %s to have it", got, second.cfg.Node)
			}
		})
	}
}

// TestAnUnfitLeaderGivesLeadershipAway, once, and nobody takes it back.
func TestAnUnfitLeaderGivesLeadershipAway(t *testing.T) {
	t.Parallel()
	c, w, nodes := examined(t, nil)
	c.set(nodes[1].cfg.Node, 4)
	learned(t, nodes[0], nodes[1:]...)
	c.set(nodes[0].cfg.Node, 4, "its link is down")
	awaitHolder(t, w, nodes[0].cfg.Node, nodes)
	former, next := nodes[0].cfg.Node, nodes[2].cfg.Node
	// Well again, and preferred: it stays where it is.
	c.mu.Lock()
	c.fitness[former] = Fitness{Preference: 100}
	c.mu.Unlock()
	nodes[0].gauge.setSteady(0)
	learned(t, nodes[2], nodes[0])
	// All alike unfit: it stays too.
	c.set(nodes[0].cfg.Node, 4)
	c.set(nodes[1].cfg.Node, 4)
	learned(t, nodes[2], nodes[0], nodes[1])
	c.set(nodes[2].cfg.Node, 4)
	begun := nodes[2].cfg.Now()
	eventually(t, "a while is over", func() bool { return nodes[2].cfg.Now() > begun+3*leadInterval })
	if got := w.holders(); strings.Join(got, " ") != former+" "+next {
		t.Errorf("the lease went to %v, want %s and then %s", got, former, next)
	}
	// The least unfit one serves.
	c.set(next, 6)
	awaitHolder(t, w, next, nodes)
}

func (g *gauge) setSteady(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.steady = d
}

// TestAnUnfitOneThatIsElectedHandsOver before it has the lease.
func TestAnUnfitOneThatIsElectedHandsOver(t *testing.T) {
	t.Parallel()
	c, w, nodes := examined(t, nil)
	c.set(nodes[1].cfg.Node, 4)
	learned(t, nodes[0], nodes[1:]...)
	for round := range 4 {
		leader, _ := leaderOf(nodes...)
		if leader == nodes[1] {
			t.Fatalf("the unfit one leads: %v", w.holders())
		}
		term := leader.State().Term
		if err := pushTo(t, leader, nodes[1]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a fit leader with a lease", func() bool {
			holder, _ := w.held()
			return holder != "" && holder != nodes[1].cfg.Node && nodes[1].State().Term >= term+2 && isFormed(nodes)
		}, nodes...)
		if got := w.holders(); slices.Contains(got, nodes[1].cfg.Node) {
			t.Fatalf("round %d: the unfit one had the lease: %v", round, got)
		}
	}
}

// pushTo transfers leadership to a node, however fit that is.
func pushTo(t *testing.T, leader, next *running) error {
	t.Helper()
	_, err := inLead(t.Context(), leader.Node, func(context.Context) (struct{}, error) {
		return struct{}{}, leader.transferTo(leader.book.get(next.ID()), "a test")
	})
	return err
}

// TestAHandoverThatFailsLeavesTheLeaderServing: the fitter one answers, but raft does
// not reach it.
func TestAHandoverThatFailsLeavesTheLeaderServing(t *testing.T) {
	t.Parallel()
	var releases atomic.Int32
	c, w, nodes := examined(t, func(cfg *Config) {
		cfg.BeforeRelease = func(context.Context) error { releases.Add(1); return nil }
	})
	leader := nodes[0]
	c.set(nodes[2].cfg.Node, 4)
	learned(t, leader, nodes[1:]...)
	dial := leader.streams.dial
	leader.streams.dial = func(ctx context.Context, id, address string) (net.Conn, error) {
		if id == nodes[1].ID() {
			return nil, errors.New("cut off")
		}
		return dial(ctx, id, address)
	}
	leader.mu.Lock()
	for _, conn := range leader.conns {
		conn.Close()
	}
	leader.mu.Unlock()
	c.set(leader.cfg.Node, 4)
	eventually(t, "an attempt", leader.isPassing, nodes...)
	eventually(t, "its end", func() bool { return !leader.isPassing() }, nodes...)
	begun := leader.cfg.Now()
	eventually(t, "a while is over", func() bool {
		if leader.isPassing() {
			t.Fatal("the next attempt at once")
		}
		return leader.cfg.Now() > begun+4*leadInterval
	})
	if holder, _ := w.held(); holder != leader.cfg.Node || len(w.holders()) != 1 || releases.Load() != 0 {
		t.Errorf("%q has the lease, %v had it; given up %d times", holder, w.holders(), releases.Load())
	}
}

func (n *Node) isPassing() bool {
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	return n.lease.pass != nil
}

// TestTwoThatFlapDoNotLoop: each is unfit while the other is fit, again and again.
func TestTwoThatFlapDoNotLoop(t *testing.T) {
	t.Parallel()
	c, w, nodes := examined(t, nil)
	c.set(nodes[2].cfg.Node, 9)
	learned(t, nodes[0], nodes[1:]...)
	for i := range 20 {
		c.set(nodes[i%2].cfg.Node, 4)
		c.set(nodes[1-i%2].cfg.Node, 0)
		begun := nodes[0].cfg.Now()
		eventually(t, "the next turn", func() bool { return nodes[0].cfg.Now() > begun+leadInterval }, nodes...)
	}
	if got := w.holders(); len(got) > 3 {
		t.Errorf("the lease went to and fro: %v", got)
	}
}

func TestTransferToALessFitDirectorIsRefused(t *testing.T) {
	t.Parallel()
	c, w, nodes := examined(t, nil)
	c.set(nodes[1].cfg.Node, 4, "drained by the operator")
	c.set(nodes[2].cfg.Node, 4, "its link is down")
	for to, reason := range map[string]string{nodes[1].cfg.Node: "drained by the operator", nodes[2].cfg.Node: "its link is down", "": "is less fit"} {
		if err := nodes[2].Transfer(t.Context(), to); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), reason) {
			t.Errorf("transfer to %q: %v, want ErrRefused with %q", to, err, reason)
		}
	}
	c.set(nodes[2].cfg.Node, 0)
	if err := nodes[1].Transfer(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if awaitHolder(t, w, nodes[0].cfg.Node, nodes); w.holders()[1] != nodes[2].cfg.Node {
		t.Errorf("%v, want the fit one to lead", w.holders())
	}
}
