package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/agent"
	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
	"github.com/ipvs-ha/ipvs-ha/vip"
)

// A stage is a host that writes down each step of taking and leaving a role.
type stage struct {
	*memkernel.Kernel
	masters chan error // what becomes of a master that is to start; nil: it starts
	jammed  bool       // the fence shuts only when unjam is called

	mu      sync.Mutex
	steps   []string
	wished  bool // somebody wants this host to own the VIPs
	owner   bool
	soon    bool // it is to be prepared
	changed chan struct{}
}

func newStage() *stage { return &stage{Kernel: memkernel.New(), changed: make(chan struct{})} }

// await waits for as many steps, compares the first ones since the last call, and
// forgets all.
func (s *stage) await(t *testing.T, want ...string) {
	t.Helper()
	await(t, fmt.Sprint(want), func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.steps) < len(want) {
			return fmt.Errorf("steps %v", s.steps)
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.steps[:min(len(s.steps), len(want))]); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	s.steps = nil
}

func (s *stage) note(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step)
}

func (s *stage) StartDaemon(ctx context.Context, d ipvs.Daemon) error {
	if d.State == ipvs.Master && s.masters != nil {
		s.note("start master")
		if err := <-s.masters; err != nil {
			return err
		}
		s.note("started")
		return s.Kernel.StartDaemon(ctx, d)
	}
	s.note("start " + d.State.String())
	return s.Kernel.StartDaemon(ctx, d)
}

func (s *stage) StopDaemon(ctx context.Context, state ipvs.DaemonState) error {
	s.note("stop " + state.String())
	return s.Kernel.StopDaemon(ctx, state)
}

func (s *stage) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (s *stage) Set(_ []vip.Address, until time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wishes := until > 0; wishes != s.wished {
		s.wished = wishes
		if wishes {
			s.owner = true
			step := "own"
			if s.soon {
				step = "own what is prepared"
			}
			s.steps = append(s.steps, step)
		} else {
			s.steps = append(s.steps, "yield")
			s.owner = s.jammed
		}
		s.notify()
	}
}

func (s *stage) Prepare(time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.soon = true
	s.notify()
}

// forget forgets all steps so far.
func (s *stage) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps, s.soon = nil, false
}

func (s *stage) jam() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jammed = true
}

func (s *stage) unjam() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owner, s.jammed = false, false
	s.steps = append(s.steps, "shut")
	s.notify()
}

func (s *stage) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stage) Status() vip.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return vip.Status{Owner: s.owner, Prepared: s.soon, Fence: vip.FenceShut}
}

func (s *stage) Resigned() <-chan struct{} { return s.Changed() }

func (s *stage) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// play starts directors d1, d2, ... on stages.
func play(t *testing.T, stages ...*stage) []*node {
	t.Helper()
	var join []string
	for i := range stages {
		join = append(join, fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()%128, os.Getpid()/128%256, 101+i))
	}
	var nodes []*node
	for i, s := range stages {
		dir := t.TempDir()
		cfg := configs.Dev(dir)
		cfg.Node = fmt.Sprintf("d%d", i+1)
		cfg.Cluster.Name, cfg.Cluster.Address = "test", netip.MustParseAddr(join[i])
		cfg.Cluster.Join, cfg.Cluster.Expect = join, len(stages)
		cfg.Cluster.Port, cfg.Cluster.GossipPort = 17400, 17401
		opts := agent.Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)).With("on", cfg.Node), Kernel: s, VIPs: s}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- agent.Run(ctx, cfg, opts) }()
		n := &node{name: cfg.Node, client: api.NewClient("unix://" + filepath.Join(dir, "api.sock"))}
		n.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("%s ended with %v", cfg.Node, err)
			}
		})
		t.Cleanup(n.stop)
		nodes = append(nodes, n)
	}
	return nodes
}

// A director takes the VIPs when its master daemon runs. One that does not start, or
// not in time, is no reason to leave them to nobody.
func TestDaemonsThenVIPs(t *testing.T) {
	t.Run("starts", func(t *testing.T) {
		s := newStage()
		play(t, s)
		s.await(t, "start master", "own")
	})
	t.Run("is refused", func(t *testing.T) {
		s := newStage()
		s.masters = make(chan error)
		go func() {
			defer close(s.masters)
			s.masters <- errors.New("refused")
		}()
		play(t, s)
		s.await(t, "start master", "own")
	})
	t.Run("hangs", func(t *testing.T) {
		s := newStage()
		s.masters = make(chan error)
		play(t, s)
		end := sync.OnceFunc(func() { close(s.masters) })
		t.Cleanup(end)
		s.await(t, "start master", "own")
		end()
		s.await(t, "started")
	})
}

// A director starts its backup daemon when no packet for a VIP is accepted any more.
func TestVIPsThenDaemons(t *testing.T) {
	stages := []*stage{newStage(), newStage()}
	nodes := play(t, stages...)
	leader := func() (at int) {
		await(t, "leader", func(ctx context.Context) error {
			status, err := nodes[0].client.Status(ctx)
			if err != nil {
				return err
			}
			at = slices.IndexFunc(nodes, func(n *node) bool { return n.name == status.Leader })
			if at < 0 || !stages[at].Status().Owner {
				return fmt.Errorf("leader %q", status.Leader)
			}
			return nil
		})
		return at
	}
	await(t, "two voters", func(ctx context.Context) error {
		members, err := nodes[0].client.Members(ctx)
		if err != nil || len(members) != 2 || !members[0].Voter || !members[1].Voter {
			return fmt.Errorf("members %+v, error %v", members, err)
		}
		status, err := nodes[0].client.Status(ctx)
		if err != nil {
			return err
		}
		for i, n := range nodes { // one that has not caught up is less fit, and a role may have moved for that
			want := ipvs.Backup
			if n.name == status.Leader {
				want = ipvs.Master
			}
			daemons, err := stages[i].Daemons(ctx)
			if err != nil || len(daemons) != 1 || daemons[0].State != want {
				return fmt.Errorf("daemons of %s: %v, error %v", n.name, daemons, err)
			}
		}
		return nil
	})
	former := leader()
	next := 1 - former
	for _, s := range stages {
		s.forget()
	}
	if err := nodes[former].client.Transfer(t.Context(), nodes[next].name); err != nil {
		t.Fatal(err)
	}
	stages[next].await(t, "start master", "own what is prepared", "stop backup")
	stages[former].await(t, "yield", "start backup", "stop master")

	stages[next].jam()
	nodes[former].stop() // without it there is no majority
	stages[next].await(t, "yield")
	await(t, "no leader", func(ctx context.Context) error {
		if status, err := nodes[next].client.Status(ctx); err != nil || status.Leader != "" {
			return fmt.Errorf("leader %q, error %v", status.Leader, err)
		}
		return nil
	})
	stages[next].unjam()
	stages[next].await(t, "shut", "start backup")
}
