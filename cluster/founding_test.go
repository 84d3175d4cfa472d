package cluster

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGiveTo(t *testing.T) {
	low := pledge{Founder: "aaaa", Address: "127.0.0.1:1", ClusterID: "x"}
	own := pledge{Founder: "bbbb", Address: "127.0.0.2:1", ClusterID: "y"}
	high := pledge{Founder: "cccc", Address: "127.0.0.3:1", ClusterID: "z"}
	tests := []struct {
		name   string
		has    record
		to     pledge
		want   *pledge
		refuse bool
	}{
		{name: "first", has: record{ID: "bbbb"}, to: high, want: &high},
		{name: "again", has: record{ID: "bbbb", Pledge: &high}, to: high, want: &high},
		{name: "second founder", has: record{ID: "bbbb", Pledge: &high}, to: low, want: &high, refuse: true},
		{name: "own gives way to lower", has: record{ID: "bbbb", Pledge: &own}, to: low, want: &low},
		{name: "own stays before higher", has: record{ID: "bbbb", Pledge: &own}, to: high, want: &own, refuse: true},
		{name: "has a cluster", has: record{ID: "bbbb", ClusterID: "y", Pledge: &own}, to: low, want: &own, refuse: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.has.giveTo(tt.to)
			if (err != nil) != tt.refuse || err != nil && !errors.Is(err, ErrRefused) {
				t.Errorf("got error %v, want refusal %v", err, tt.refuse)
			}
			if diff := cmp.Diff(tt.want, tt.has.Pledge); diff != "" {
				t.Errorf("pledge (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWithdrawn(t *testing.T) {
	p := pledge{Founder: "dddd", ClusterID: "y"}
	other := pledge{Founder: "aaaa", ClusterID: "x"}
	of := func(id string, has string, to *pledge) hello {
		return hello{entry: entry{ID: id}, ClusterID: has, Pledge: to}
	}
	tests := []struct {
		name string
		says hello
		want bool
	}{
		{"still proposes", of("dddd", "", &p), false},
		{"founded it", of("dddd", "y", &p), false},
		{"pledged elsewhere", of("dddd", "", &other), true},
		{"pledged to nobody", of("dddd", "", nil), true},
		{"in another cluster", of("dddd", "x", &other), true},
		{"somebody else says so", of("eeee", "", nil), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.withdrawn(tt.says); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestOldWordsAreNoWithdrawal: what the founder said before it proposed does not
// end a pledge that was given since.
func TestOldWordsAreNoWithdrawal(t *testing.T) {
	b := newBed(t, 2)
	cfg := b.config(1, 2)
	cfg.FSM, cfg.Applied = &list{}, func() uint64 { return 0 }
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	given := pledge{Founder: "0000000000000000", Address: "127.0.0.2:1", ClusterID: "x"}
	idle := []hello{{entry: entry{ID: given.Founder, Name: "d2"}, Expect: 2}}

	before := n.identity.get().Pledge
	if _, err := n.identity.update(func(r *record) error { return r.giveTo(given) }); err != nil {
		t.Fatal(err)
	}
	if _, err := n.found(t.Context(), before, idle); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&given, n.identity.get().Pledge); diff != "" {
		t.Fatalf("old words: pledge (-want +got):\n%s", diff)
	}
	if _, err := n.found(t.Context(), n.identity.get().Pledge, idle); err != nil {
		t.Fatal(err)
	}
	if p := n.identity.get().Pledge; p != nil {
		t.Errorf("the founder withdrew, but the pledge is kept: %+v", p)
	}
}

func TestChoose(t *testing.T) {
	a, b := entry{ID: "a", Name: "d1", Address: "1"}, entry{ID: "b", Name: "d2", Address: "2"}
	w, x := entry{ID: "0", Name: "w1", Address: "3", Witness: true}, entry{ID: "1", Name: "w2", Address: "4", Witness: true}
	tests := []struct {
		name    string
		nodes   []entry
		founder string
		want    []entry
		err     string
	}{
		{"directors first", []entry{w, b, a}, "a", []entry{a, b}, ""},
		{"the founder always", []entry{a, b, w}, "0", []entry{w, a}, ""},
		{"only witnesses", []entry{w, x}, "0", nil, "witnesses"},
		{"one name", []entry{a, {ID: "c", Name: "d1", Address: "9"}}, "a", nil, "named d1"},
		{"one address", []entry{a, {ID: "c", Name: "d3", Address: "1"}}, "a", nil, "one address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := choose(tt.nodes, tt.founder, 2)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("got error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// clusters returns the cluster ids that the nodes have.
func clusters(nodes []*running) map[string]bool {
	ids := map[string]bool{}
	for _, r := range nodes {
		if id := r.identity.get().ClusterID; id != "" {
			ids[id] = true
		}
	}
	return ids
}

// founded waits until all nodes are members of one cluster.
func founded(t *testing.T, nodes []*running) {
	t.Helper()
	eventually(t, "one cluster of all", func() bool {
		if got := clusters(nodes); len(got) > 1 {
			t.Fatalf("several clusters: %v", got)
		}
		return isFormed(nodes)
	}, nodes...)
}

func TestFoundsOneCluster(t *testing.T) {
	for lane := range 5 {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			for round := range 8 {
				hosts := 3 + round%2 // as many as expected, or one more
				b := newBed(t, hosts)
				var nodes []*running
				for i := range hosts {
					nodes = append(nodes, b.run(b.config(i+1, 3)))
				}
				founded(t, nodes)
				for _, r := range nodes {
					r.kill()
				}
			}
		})
	}
}

func TestFoundsAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	cfg := b.config(1, 1)
	first := b.run(cfg)
	formed(t, first)
	propose(t, first, "alone")
	first.stop()
	// The data directory keeps the cluster.
	second := b.run(cfg)
	formed(t, second)
	eventually(t, "the log", func() bool { return second.fsm.has("alone") })
	if first.State().ClusterID != second.State().ClusterID {
		t.Error("a restart founded another cluster")
	}
}

// TestFoundingCrash stops every node once at a step of the founding, starts it
// anew, and wants one cluster in the end. At the step "pledged" a pledge is given
// but the answer is lost.
func TestFoundingCrash(t *testing.T) {
	for _, step := range []string{"proposed", "pledged", "founded", "bootstrapped"} {
		for _, extra := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s with %d nodes", step, 3+extra), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, 3+extra)
				crashed := errors.New("crash")
				var nodes []*running
				for i := range 3 + extra {
					once := false
					nodes = append(nodes, b.run(b.config(i+1, 3), func(n *Node) {
						n.crashAt = func(at string) error {
							if at != step || once {
								return nil
							}
							once = true
							return crashed
						}
					}))
				}
				restarts := 0
				eventually(t, "one cluster of all", func() bool {
					for i, r := range nodes {
						select {
						case <-r.done:
							if !errors.Is(r.err, crashed) {
								t.Fatalf("%s: %v", r.cfg.Node, r.err)
							}
							restarts++
							nodes[i] = b.run(r.cfg)
						default:
						}
					}
					if got := clusters(nodes); len(got) > 1 {
						t.Fatalf("several clusters: %v", got)
					}
					return isFormed(nodes)
				}, nodes...)
				if restarts == 0 && step != "pledged" {
					t.Errorf("nobody came by the step %q", step)
				}
			})
		}
	}
}

// TestFounderStoppedWhileWriting is the crash between raft's two writes of a first
// configuration: a term, but no log.
func TestFounderStoppedWhileWriting(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	cfg := b.config(1, 1)
	stop := errors.New("stop")
	first := b.run(cfg, func(n *Node) {
		n.crashAt = func(step string) error {
			if step != "founded" {
				return nil
			}
			return errors.Join(stop, n.store.SetUint64([]byte("CurrentTerm"), 1))
		}
	})
	<-first.done
	if !errors.Is(first.err, stop) {
		t.Fatal(first.err)
	}
	second := b.run(cfg)
	formed(t, second)
}

func TestNoPledgeAfterTheFounding(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	nodes := []*running{b.run(b.config(1, 2)), b.run(b.config(2, 2))}
	formed(t, nodes...)
	for _, r := range nodes {
		if err := r.answerPledge([]byte(`{"founder":"0","address":"x","cluster_id":"other","expect":2}`)); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want ErrRefused", r.cfg.Node, err)
		}
	}
}

// TestPledgedNodeWaitsForItsFounder: a founder that is gone may have founded the
// cluster, so its pledges hold until it comes back.
func TestPledgedNodeWaitsForItsFounder(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	// The one with the lowest id proposes; it stops right before the founding.
	stop := errors.New("stop")
	crash := func(n *Node) {
		n.crashAt = func(step string) error {
			if step == "founded" {
				return stop
			}
			return nil
		}
	}
	nodes := []*running{b.run(b.config(1, 3), crash), b.run(b.config(2, 3), crash), b.run(b.config(3, 3), crash)}
	var founder *running
	var rest []*running
	eventually(t, "founder gone", func() bool {
		for i, r := range nodes {
			select {
			case <-r.done:
				founder, rest = r, append(append(rest, nodes[:i]...), nodes[i+1:]...)
				return true
			default:
			}
		}
		return false
	})
	fourth := b.run(b.config(4, 3)) // three are up again
	for _, r := range rest {
		eventually(t, "words", func() bool { return strings.Contains(r.State().Waiting, "does not answer") }, r)
	}
	if got := clusters(append(rest, fourth)); len(got) > 0 {
		t.Fatalf("clusters %v without the founder", got)
	}
	founded(t, append(rest, fourth, b.run(founder.cfg)))
}

func TestWipedMajorityFoundsNothing(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	propose(t, nodes[2], "precious")
	id := nodes[2].State().ClusterID
	for _, r := range nodes[:2] {
		r.kill()
		if err := os.RemoveAll(r.cfg.DataDir); err != nil {
			t.Fatal(err)
		}
	}
	var wiped []*running
	for _, r := range nodes[:2] {
		wiped = append(wiped, b.run(r.cfg))
	}
	for _, r := range wiped {
		eventually(t, "words about the leader", func() bool { return strings.Contains(r.State().Waiting, "knows a leader") }, r)
	}
	// Two and a new one would be enough, were it not for the survivor.
	fourth := b.config(4, 3)
	wiped = append(wiped, b.run(fourth))
	eventually(t, "words about the leader", func() bool { return strings.Contains(wiped[2].State().Waiting, "knows a leader") }, wiped...)
	for _, r := range wiped {
		if rec := r.identity.get(); rec.ClusterID != "" && rec.ClusterID != id {
			t.Errorf("%s is in cluster %s", r.cfg.Node, rec.ClusterID)
		}
	}
}

func TestExpectMustAgree(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	first := b.run(b.config(1, 2))
	second := b.run(b.config(2, 3))
	for _, r := range []*running{first, second} {
		eventually(t, "words", func() bool { return strings.Contains(r.State().Waiting, "make them equal") }, r)
	}
	if got := clusters([]*running{first, second}); len(got) > 0 {
		t.Errorf("clusters %v", got)
	}
}
