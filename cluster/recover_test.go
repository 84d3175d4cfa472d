package cluster

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

// openRecovery opens a stopped node's directory for its recovery.
func openRecovery(t *testing.T, cfg Config, dead ...string) (*Recovery, error) {
	t.Helper()
	fsm := &list{}
	cfg.FSM, cfg.Applied = fsm, fsm.applied
	r, err := OpenRecovery(cfg, dead)
	if err == nil {
		t.Cleanup(func() { r.Close() })
	}
	return r, err
}

// lost returns a cluster of three that has acknowledged a write, all of it stopped.
func lost(t *testing.T) (b *bed, survivor *running, dead []*running) {
	t.Helper()
	b, nodes := three(t, nil)
	propose(t, nodes[0], "kept")
	for _, r := range nodes {
		eventually(t, "the write", func() bool { return r.fsm.has("kept") })
	}
	eventually(t, "the members' names", func() bool {
		data, err := os.ReadFile(nodes[0].book.path)
		return err == nil && strings.Contains(string(data), `"d2"`) && strings.Contains(string(data), `"d3"`)
	})
	for _, r := range nodes {
		r.kill()
	}
	return b, nodes[0], nodes[1:]
}

func TestRecover(t *testing.T) {
	t.Parallel()
	b, survivor, dead := lost(t)
	r, err := openRecovery(t, survivor.cfg, "d2", dead[1].ID())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Members) != 3 || len(r.Dead) != 2 || len(r.Others) != 0 || r.Node.Name != "d1" || r.LastIndex == 0 || r.LastTerm == 0 {
		t.Errorf("%+v", r)
	}
	const promised = 3 * time.Second // longer than an election of one takes
	if _, err := r.node.identity.update(func(rec *record) error { rec.Promised = promised; return nil }); err != nil {
		t.Fatal(err)
	}
	id, err := r.Run()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	w := &watch{t: t, until: map[string]time.Duration{}}
	cfg := survivor.cfg
	cfg.Profile, cfg.OnLease = leaseProfile, w.onLease("d1")
	began := boottime.Now()
	alone := b.run(cfg)
	formed(t, alone)
	if got := alone.State().ClusterID; got != id || got == r.ClusterID {
		t.Errorf("cluster id %s, want %s and not %s", got, id, r.ClusterID)
	}
	eventually(t, "the data", func() bool { return alone.fsm.has("kept") })
	propose(t, alone, "new")
	if since := awaitHolder(t, w, "", []*running{alone}); since-began < promised {
		t.Errorf("it holds a lease %v after its start, and may have promised one for %v", since-began, promised)
	}

	// The old ones are a majority of the old cluster, and stay away from the new one.
	old := b.run(dead[0].cfg)
	eventually(t, "words", func() bool { return strings.Contains(old.State().Waiting, "delete the caller's data directory") }, old)
	if s := alone.State(); len(s.Members) != 1 {
		t.Errorf("an old member is in the new cluster: %+v", s.Members)
	}
	old.kill()
	if err := os.RemoveAll(old.cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	back := b.run(old.cfg)
	formed(t, alone, back)
	eventually(t, "the data", func() bool { return back.fsm.has("kept") && back.fsm.has("new") })
}

func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	b, survivor, _ := lost(t)
	for _, tt := range []struct {
		dead string
		want error
		says string
	}{
		{"d2", ErrRefused, "2 of 3 voters are not said to be dead"},
		{"", ErrNotFound, ""},
		{"d2,d9", ErrNotFound, `"d9"; the members are d1, d2, d3`},
		{"d2,d1", ErrRefused, "d1 is this node"},
	} {
		if _, err := openRecovery(t, survivor.cfg, strings.Split(tt.dead, ",")...); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %v, want %v that says %q", tt.dead, err, tt.want, tt.says)
		}
	}
	if _, err := openRecovery(t, b.config(9, 3), "d2", "d3"); !errors.Is(err, ErrRefused) {
		t.Errorf("an empty directory: %v, want ErrRefused", err)
	}
	running := b.run(survivor.cfg)
	if _, err := openRecovery(t, running.cfg, "d2", "d3"); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("of a node that runs: %v", err)
	}
}

// TestRecoverAgain: a crash after its first write leaves a node that can do nothing
// but be recovered again.
func TestRecoverAgain(t *testing.T) {
	t.Parallel()
	b, survivor, dead := lost(t)
	stop := errors.New("stop")
	r, err := openRecovery(t, survivor.cfg, "d2", "d3")
	if err != nil {
		t.Fatal(err)
	}
	r.node.crashAt = func(string) error { return stop }
	if _, err := r.Run(); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	half, other := b.run(survivor.cfg), b.run(dead[0].cfg)
	eventually(t, "words", func() bool { return strings.Contains(other.State().Waiting, "was recovered") }, half, other)
	if half.isLeader() || other.isLeader() {
		t.Error("half a recovery has a leader")
	}
	half.kill()
	if r, err = openRecovery(t, survivor.cfg, "d2", "d3"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	alone := b.run(survivor.cfg)
	formed(t, alone)
	eventually(t, "the data", func() bool { return alone.fsm.has("kept") })
}
