package cluster

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

// leaseProfile is quick, with room for two busy cores.
var leaseProfile = Profile{
	Heartbeat: 700 * time.Millisecond, Election: 700 * time.Millisecond, LeaderLease: 300 * time.Millisecond,
	Lease: 300 * time.Millisecond, Stagger: 50 * time.Millisecond, Commit: 5 * time.Millisecond, Transport: 700 * time.Millisecond,
}

// A watch sees every lease of a cluster and fails when two overlap.
type watch struct {
	t *testing.T

	mu     sync.Mutex
	told   map[string]time.Duration // by OnLease
	until  map[string]time.Duration // what was allowed may go on
	holder string                   // of the newest lease
	since  time.Duration
	moves  int
	all    []string // holders, in order
}

// see has w see the leases of the node that c configures.
func (w *watch) see(c *Config) {
	node, release := c.Node, c.BeforeRelease
	c.OnLease = w.onLease(node)
	c.BeforeRelease = func(ctx context.Context) error {
		if release != nil {
			if err := release(ctx); err != nil {
				return err
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.until[node] = min(w.until[node], boottime.Now())
		return nil
	}
}

func (w *watch) onLease(node string) func(time.Duration) {
	return func(until time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		now := boottime.Now()
		if w.told == nil {
			w.told = map[string]time.Duration{}
		}
		w.told[node] = until
		if until == 0 { // what it allowed may go on until BeforeRelease has ended, or the lease
			return
		}
		for other, end := range w.until {
			if other != node && end > now {
				w.t.Errorf("%s holds a lease %v before that of %s ends", node, end-now, other)
			}
		}
		w.until[node] = until
		if w.holder != node {
			w.holder, w.since = node, now
			w.moves++
			w.all = append(w.all, node)
		}
	}
}

// held returns who holds the lease now, "" nobody, and since when.
func (w *watch) held() (node string, since time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until[w.holder] <= boottime.Now() {
		return "", 0
	}
	return w.holder, w.since
}

func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moves
}

// leased returns a formed cluster of three with a lease, its leader first.
func leased(t *testing.T, tweak func(*Config)) (*bed, *watch, []*running) {
	t.Helper()
	w := &watch{t: t, until: map[string]time.Duration{}}
	b, nodes := three(t, func(c *Config) {
		c.Profile = leaseProfile
		if tweak != nil {
			tweak(c)
		}
		w.see(c)
	})
	awaitHolder(t, w, "", nodes)
	leader, followers := leaderOf(nodes...)
	return b, w, append([]*running{leader}, followers...)
}

// awaitHolder waits until a node other than former holds a lease.
func awaitHolder(t *testing.T, w *watch, former string, nodes []*running) (since time.Duration) {
	t.Helper()
	eventually(t, "a lease", func() bool {
		node, at := w.held()
		since = at
		return node != "" && node != former
	}, nodes...)
	return since
}

// TestLeaseMovesAtItsEnd: the successor does not wait for raft's timers.
func TestLeaseMovesAtItsEnd(t *testing.T) {
	t.Parallel()
	var stood atomic.Int32
	_, w, nodes := leased(t, func(c *Config) { c.OnStand = func() { stood.Add(1) } })
	stood.Store(0)
	began := boottime.Now()
	nodes[0].cut()
	took := awaitHolder(t, w, nodes[0].cfg.Node, nodes[1:]) - began
	t.Logf("%v after the leader was cut off", took)
	if stood.Load() == 0 {
		t.Error("nobody was told that it stands for election")
	}
	if took < leaseProfile.Lease/2 {
		t.Errorf("the next lease began after %v, before the former could have ended", took)
	}
	if took > leaseProfile.Heartbeat {
		t.Errorf("the next lease began after %v: raft's own timers take %v at least", took, leaseProfile.Heartbeat)
	}
}

// TestWithoutSuccession: raft's timers find a successor too, later.
func TestWithoutSuccession(t *testing.T) {
	t.Parallel()
	_, w, nodes := leased(t, func(c *Config) { c.NoSuccession = true })
	began := boottime.Now()
	nodes[0].cut()
	took := awaitHolder(t, w, nodes[0].cfg.Node, nodes[1:]) - began
	t.Logf("%v after the leader was cut off", took)
	if took < 3*leaseProfile.Lease/2 {
		t.Errorf("the next lease began after %v, soon after the former ended", took)
	}
}

// TestSuccessionBesideOneWithout: the one that does not stand does not hold up the one
// that does, though it comes first.
func TestSuccessionBesideOneWithout(t *testing.T) {
	t.Parallel()
	const without = "d1"
	_, w, nodes := leased(t, func(c *Config) {
		if c.Node == without {
			c.NoSuccession = true
			c.Fitness = func() Fitness { return Fitness{Preference: MaxPreference} }
		}
	})
	if nodes[0].cfg.Node == without {
		if err := nodes[0].Transfer(t.Context(), nodes[1].cfg.Node); err != nil {
			t.Fatal(err)
		}
		awaitHolder(t, w, without, nodes)
	}
	leader, others := leaderOf(nodes...)
	began := boottime.Now()
	leader.cut()
	took := awaitHolder(t, w, leader.cfg.Node, others) - began
	t.Logf("%v after the leader was cut off", took)
	if node, _ := w.held(); node == without || took > leaseProfile.Heartbeat {
		t.Errorf("%s has the lease after %v", node, took)
	}
}

func TestTransferReleasesTheLease(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	shut := 0
	_, w, nodes := leased(t, func(c *Config) {
		c.BeforeRelease = func(context.Context) error { mu.Lock(); defer mu.Unlock(); shut++; return nil }
	})
	began := boottime.Now()
	if err := nodes[1].Transfer(t.Context(), nodes[2].cfg.Node); err != nil {
		t.Fatal(err)
	}
	took := awaitHolder(t, w, nodes[0].cfg.Node, nodes) - began
	t.Logf("%v for a transfer", took)
	mu.Lock()
	defer mu.Unlock()
	if shut != 1 {
		t.Errorf("BeforeRelease was called %d times", shut)
	}
	// And on the leader's own end.
	former, _ := w.held()
	for _, r := range nodes {
		if r.cfg.Node == former {
			mu.Unlock()
			r.stop()
			mu.Lock()
		}
	}
	awaitHolder(t, w, former, nil)
}

// TestOneHandOver: a leader that stops is unfit too, and gives leadership away once.
func TestOneHandOver(t *testing.T) {
	t.Parallel()
	var releases atomic.Int32
	_, w, nodes := leased(t, func(c *Config) {
		c.BeforeRelease = func(context.Context) error {
			releases.Add(1)
			time.Sleep(leaseProfile.Lease) // a slow fence; the lease is looked after meanwhile
			return nil
		}
	})
	nodes[0].stop()
	awaitHolder(t, w, nodes[0].cfg.Node, nodes[1:])
	if n := releases.Load(); n != 1 {
		t.Errorf("the lease was given up %d times", n)
	}
}

// TestTheFormerLeaderServesMeanwhile: the heir is elected and takes its time to prepare,
// and the lease stays where it was until then.
func TestTheFormerLeaderServesMeanwhile(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var prepared, released time.Duration
	var w *watch
	var former, heir string
	_, w, nodes := leased(t, func(c *Config) {
		c.BeforeLease = func(ctx context.Context) {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			prepared = boottime.Now()
			if holder, _ := w.held(); c.Node == heir && holder != former {
				t.Errorf("%q has the lease while the heir prepares", holder)
			}
		}
		c.BeforeRelease = func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			released = boottime.Now()
			return nil
		}
	})
	mu.Lock()
	former, heir = nodes[0].cfg.Node, nodes[1].cfg.Node
	mu.Unlock()
	if err := nodes[0].Transfer(t.Context(), nodes[1].cfg.Node); err != nil {
		t.Fatal(err)
	}
	since := awaitHolder(t, w, nodes[0].cfg.Node, nodes)
	mu.Lock()
	defer mu.Unlock()
	if prepared == 0 || released < prepared {
		t.Errorf("the heir is prepared at %v, the lease was given up at %v", prepared, released)
	}
	t.Logf("no lease for %v", since-released)
	if since-released > leaseProfile.Lease/4 {
		t.Errorf("no lease for %v", since-released)
	}
}

// TestAnHeirThatIsLost after it was elected: the others wait for the end of the lease
// that the former leader still has, and no longer.
func TestAnHeirThatIsLost(t *testing.T) {
	t.Parallel()
	var heir atomic.Pointer[running]
	_, w, nodes := leased(t, func(c *Config) {
		c.BeforeLease = func(context.Context) {
			if r := heir.Load(); r != nil && r.cfg.Node == c.Node {
				r.cut()
			}
		}
	})
	heir.Store(nodes[1])
	transferring := make(chan struct{})
	go func() { // it waits for the heir
		defer close(transferring)
		_ = nodes[0].Transfer(t.Context(), nodes[1].cfg.Node)
	}()
	t.Cleanup(func() { <-transferring })
	eventually(t, "the heir is cut off", nodes[1].isCut.Load, nodes...)
	began := boottime.Now()
	eventually(t, "a lease of the two others", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.holder != nodes[1].cfg.Node && w.until[w.holder] > began+2*leaseProfile.Lease
	}, nodes...)
}

// TestTransferWaitsForNobody: a voter that does not answer is told of the release too,
// but nobody owns the VIPs meanwhile.
func TestTransferWaitsForNobody(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var released time.Duration
	_, w, nodes := leased(t, func(c *Config) {
		c.BeforeRelease = func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			released = boottime.Now()
			return nil
		}
	})
	leader, next, silent := nodes[0], nodes[1], nodes[2]
	leader.silent.Store(&silent.id)
	leader.dropIdle()
	if err := leader.Transfer(t.Context(), next.cfg.Node); err != nil {
		t.Fatal(err)
	}
	since := awaitHolder(t, w, leader.cfg.Node, nodes)
	mu.Lock()
	defer mu.Unlock()
	t.Logf("no lease for %v", since-released)
	if since-released >= askTimeout {
		t.Errorf("no lease for %v: the transfer has waited for one that is silent", since-released)
	}
}

// TestAFollowerThatWasAwayMovesNothing: it did not hear the leader, and others did.
func TestAFollowerThatWasAwayMovesNothing(t *testing.T) {
	t.Parallel()
	_, w, nodes := leased(t, nil)
	term := nodes[0].State().Term
	for range 3 {
		nodes[1].cut()
		eventually(t, "it misses the leader", func() bool { return nodes[1].State().Leader == "" }, nodes[1])
		nodes[1].isCut.Store(false)
		eventually(t, "it is back", func() bool { return nodes[1].State().Leader == nodes[0].ID() }, nodes...)
	}
	if got := nodes[0].State().Term; got != term || w.count() != 1 {
		t.Errorf("term %d, was %d; %d holders", got, term, w.count())
	}
}

// TestVotersPassTheWordOn: a voter that was told why the former leader gave its lease up
// tells the next one, which may have the lease before the former one's answer arrives.
func TestVotersPassTheWordOn(t *testing.T) {
	t.Parallel()
	_, _, nodes := leased(t, func(c *Config) { c.NoSuccession = true })
	former, heir, voter := nodes[0], nodes[1], nodes[2]
	term := former.State().Term
	former.cut()
	ask := func(from string, term uint64) (said report) {
		t.Helper()
		request, _ := json.Marshal(leaseRequest{Term: term, Sent: boottime.Now(), Length: leaseProfile.Lease})
		answer, err := voter.answerLease(t.Context(), from, request)
		if err == nil {
			err = json.Unmarshal(answer, &said)
		}
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	word, _ := json.Marshal(leaseRelease{Term: term, Sent: boottime.Now(), Why: "maintenance"})
	if err := voter.answerRelease(former.ID(), word); err != nil {
		t.Fatal(err)
	}
	if said := ask(heir.ID(), term+1); said.Freed != former.ID() || said.Why != "maintenance" {
		t.Errorf("%+v", said)
	}
	if said := ask(former.ID(), term+2); said.Freed != "" {
		t.Errorf("to the former leader, which leads again: %+v", said)
	}
	if said := ask(heir.ID(), term+3); said.Freed != "" {
		t.Errorf("after that: %+v", said)
	}
}

// TestOtherTimingsAreTold: on both sides, and a leader that a majority may still grant
// works on.
func TestOtherTimingsAreTold(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	short := leaseProfile
	short.Lease, short.LeaderLease, short.Heartbeat = 200*time.Millisecond, 290*time.Millisecond, 650*time.Millisecond
	_, _, nodes := leased(t, func(c *Config) {
		if c.Node == "d2" {
			c.Profile, c.Logger = short, slog.New(slog.NewTextHandler(&log, nil))
		}
	})
	for _, r := range nodes {
		words := map[string]string{"d2": "lease 200ms, not 300ms, heartbeat 650ms, not 700ms, leader_lease 290ms, not 300ms"}
		if r.cfg.Node == "d2" {
			other := "lease 300ms, not 200ms, heartbeat 700ms, not 650ms, leader_lease 300ms, not 290ms"
			words = map[string]string{"d1": other, "d3": other}
		}
		eventually(t, "words", func() bool {
			for _, m := range r.State().Members {
				if m.OtherTimings != words[m.Name] {
					return false
				}
			}
			return true
		}, nodes...)
	}
	eventually(t, "a line in the log", func() bool { return strings.Contains(log.String(), "all nodes need the same profile") })
}

// TestLeaseOfOne: a node alone grants itself.
func TestLeaseOfOne(t *testing.T) {
	t.Parallel()
	w := &watch{t: t, until: map[string]time.Duration{}}
	b := newBed(t, 1)
	cfg := b.config(1, 1)
	cfg.Profile = leaseProfile
	w.see(&cfg)
	r := b.run(cfg)
	awaitHolder(t, w, "", []*running{r})
	r.kill()
	eventually(t, "the end of the lease", func() bool { node, _ := w.held(); return node == "" })
}

// TestLeasesDoNotOverlap cuts and restarts whoever holds the lease, again and again.
func TestLeasesDoNotOverlap(t *testing.T) {
	t.Parallel()
	b, w, nodes := leased(t, nil)
	for round := range 6 {
		former, _ := w.held()
		for i, r := range nodes {
			if r.cfg.Node != former {
				continue
			}
			if round%2 == 0 {
				r.kill()
				nodes[i] = b.run(r.cfg)
			} else {
				r.cut()
				awaitHolder(t, w, former, nodes)
				r.isCut.Store(false)
			}
		}
		awaitHolder(t, w, "", nodes)
		formed(t, nodes...)
	}
	t.Logf("%d holders", w.count())
}
