package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ipvs-ha/ipvs-ha/agent"
	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Raft answers no transfer that is under way when it is shut down.
		goleak.IgnoreTopFunction("github.com/hashicorp/raft.(*deferError).Error"),
		// Memberlist does not wait for the end of a probe.
		goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).sendPingAndWaitForAck"), // of the same, by TCP
	)
}

const patience = 30 * time.Second

// node is one agent of a test's cluster, with its kernel.
type node struct {
	name   string
	kernel *memkernel.Kernel
	client *api.Client
	stop   func()
}

// start starts directors d1, d2, ... on loopback addresses, one for each kernel; nil
// makes a witness.
func start(t testing.TB, kernels ...*memkernel.Kernel) []*node {
	t.Helper()
	var join []string
	for i := range kernels {
		join = append(join, fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()%128, os.Getpid()/128%256, i+1)) // not another run's
	}
	var nodes []*node
	for i, k := range kernels {
		dir := t.TempDir()
		cfg := configs.Dev(dir)
		cfg.Node = fmt.Sprintf("d%d", i+1)
		cfg.Cluster.Name = "test"
		cfg.Cluster.Address = netip.MustParseAddr(join[i])
		cfg.Cluster.Join, cfg.Cluster.Expect = join, len(kernels)
		cfg.Cluster.Port, cfg.Cluster.GossipPort = 17400, 17401
		opts := agent.Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)).With("on", cfg.Node)}
		if k == nil {
			cfg.Role = configs.Witness
		} else {
			opts.Kernel = k
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- agent.Run(ctx, cfg, opts) }()
		n := &node{name: cfg.Node, kernel: k, client: api.NewClient("unix://" + filepath.Join(dir, "api.sock"))}
		n.stop = func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("%s ended with %v", cfg.Node, err)
			}
			ended <- nil
		}
		t.Cleanup(n.stop)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		await(t, n.name+" to know a leader", func(ctx context.Context) error {
			_, err := n.client.Table(ctx, false)
			return err
		})
	}
	return nodes
}

func await(t testing.TB, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

var web = ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("10.9.0.100:80"))

func add(key ipvs.ServiceKey, scheduler string) api.Write {
	service := &ipvs.Service{Key: key, Scheduler: scheduler, NoVIP: ipvs.Negated(key.FWMark == 0)}
	return api.Write{ID: api.NewID(), Changes: []ipvs.Change{{Op: ipvs.AddService, Key: key, Service: service}}}
}

func holds(t *testing.T, n *node, key ipvs.ServiceKey) bool {
	t.Helper()
	table, err := n.kernel.Table(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return table.Service(key) != nil
}

func TestWriteIsInEveryKernel(t *testing.T) {
	nodes := start(t, memkernel.New(), memkernel.New(), memkernel.New())
	for i, n := range nodes {
		key := ipvs.ServiceMarked(ipvs.IPv4, uint32(i+1))
		w := add(key, "rr")
		result, err := n.client.Write(t.Context(), w)
		if err != nil || len(result.Pending) > 0 {
			t.Fatalf("write through %s: %+v, %v", n.name, result, err)
		}
		for _, other := range nodes {
			if !holds(t, other, key) {
				t.Errorf("%s does not hold the write through %s when that returns", other.name, n.name)
			}
			view, err := other.client.Table(t.Context(), false)
			if err != nil || view.Revision != result.Revision || view.Table.Service(key) == nil {
				t.Errorf("%s reads revision %d, %v; want %d", other.name, view.Revision, err, result.Revision)
			}
		}
		again, err := nodes[(i+1)%3].client.Write(t.Context(), w)
		if err != nil || !again.Repeated || again.Revision != result.Revision {
			t.Errorf("a repeated write: %+v, %v; want the first answer, revision %d", again, err, result.Revision)
		}
	}
}

// TestOneNodeLacksAScheduler: the others apply, and both the write's answer and the
// status name the node and the object.
func TestOneNodeLacksAScheduler(t *testing.T) {
	nodes := start(t, memkernel.New(), memkernel.New(), memkernel.New(memkernel.WithoutScheduler("mh")))
	result, err := nodes[0].client.Write(t.Context(), add(web, "mh"))
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Pending) != 1 || result.Pending[0].Node != "d3" || !strings.Contains(result.Pending[0].Reason, web.String()) {
		t.Fatalf("pending: %+v, want d3 with %s", result.Pending, web)
	}
	other := ipvs.ServiceMarked(ipvs.IPv4, 7)
	if result, err := nodes[0].client.Write(t.Context(), add(other, "rr")); err != nil || len(result.Pending) > 0 {
		t.Fatalf("a write that every kernel takes: %+v, %v", result, err)
	}
	for _, n := range nodes {
		if !holds(t, n, other) {
			t.Errorf("%s does not hold the other service", n.name)
		}
		if got, want := holds(t, n, web), n.name != "d3"; got != want {
			t.Errorf("%s holds the mh service: %t, want %t", n.name, got, want)
		}
	}
	status, err := nodes[1].client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range status.Nodes {
		if n.Name != "d3" {
			if len(n.Errors) > 0 {
				t.Errorf("%s has errors: %+v", n.Name, n.Errors)
			}
			continue
		}
		if len(n.Errors) != 1 || n.Errors[0].Object != web.String() || !strings.Contains(n.Errors[0].Message, "mh") {
			t.Errorf("d3's errors: %+v, want one about %s and mh", n.Errors, web)
		}
	}
}

func TestRefusalsDoNotReachTheLog(t *testing.T) {
	nodes := start(t, memkernel.New())
	n := nodes[0]
	if _, err := n.client.Write(t.Context(), add(web, "rr")); err != nil {
		t.Fatal(err)
	}
	before, err := n.client.Table(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	old := uint64(1)
	bad := add(ipvs.ServiceMarked(ipvs.IPv4, 1), "rr")
	bad.IfRevision = &old
	for name, tt := range map[string]struct {
		write api.Write
		kind  api.Kind
	}{
		"unknown scheduler": {add(ipvs.ServiceMarked(ipvs.IPv4, 1), "quick"), api.Invalid},
		"exists":            {add(web, "rr"), api.Exists},
		"missing":           {api.Write{Changes: []ipvs.Change{{Op: ipvs.DeleteService, Key: ipvs.ServiceMarked(ipvs.IPv4, 1)}}}, api.NotFound},
		"old revision":      {bad, api.Conflict},
		"nothing":           {api.Write{}, api.Malformed},
	} {
		_, err := n.client.Write(t.Context(), tt.write)
		var p *api.Problem
		if !errors.As(err, &p) || p.Kind != tt.kind {
			t.Errorf("%s: %v (%s), want %s", name, err, api.KindOf(err), tt.kind)
		}
	}
	// The next command's index shows whether anything came between.
	result, err := n.client.Write(t.Context(), add(ipvs.ServiceMarked(ipvs.IPv4, 2), "rr"))
	if err != nil || result.Revision != before.Revision+1 {
		t.Errorf("revision %d after %d, %v: a refused write is in the log", result.Revision, before.Revision, err)
	}
}

func TestWitnessGivesLeadershipAway(t *testing.T) {
	nodes := start(t, memkernel.New(), memkernel.New(), nil)
	await(t, "a director to lead", func(ctx context.Context) error {
		status, err := nodes[2].client.Status(ctx)
		if err == nil && (status.Leader == "" || status.Leader == "d3") {
			err = fmt.Errorf("%q leads", status.Leader)
		}
		return err
	})
	result, err := nodes[2].client.Write(t.Context(), add(web, "rr"))
	if err != nil || len(result.Pending) > 0 {
		t.Fatalf("write through the witness: %+v, %v", result, err)
	}
	for _, n := range nodes[:2] {
		if !holds(t, n, web) {
			t.Errorf("%s does not hold the write", n.name)
		}
	}
	if err := nodes[2].client.Reconcile(t.Context()); err != nil {
		t.Errorf("reconcile through the witness: %v", err)
	}
}

// TestDrain drains the active director, then another, then the last.
func TestDrain(t *testing.T) {
	nodes := start(t, memkernel.New(), memkernel.New(), nil)
	byName := map[string]*node{}
	for _, n := range nodes {
		byName[n.name] = n
	}
	yes, no, high := true, false, 90
	for name, kind := range map[string]api.Kind{"d9": api.NotFound, "d3": api.Refused} {
		if _, err := nodes[0].client.Configure(t.Context(), name, api.MemberSettings{Drained: &yes}); api.KindOf(err) != kind {
			t.Errorf("drain %s: %v, want %s", name, err, kind)
		}
	}
	tooHigh := 101
	if _, err := nodes[0].client.Configure(t.Context(), "d1", api.MemberSettings{Preference: &tooHigh}); api.KindOf(err) != api.Invalid {
		t.Errorf("preference 101: %v", err)
	}
	active := func() (active *node, standby *node) {
		await(t, "an active director", func(ctx context.Context) error {
			status, err := nodes[0].client.Status(ctx)
			active, standby = nil, nil
			for _, n := range status.Nodes {
				switch n.State {
				case api.StateActive:
					active = byName[n.Name]
				case api.StateStandby:
					standby = byName[n.Name]
				}
			}
			if err == nil && (active == nil || standby == nil || status.Leader != active.name) {
				err = fmt.Errorf("%+v", status)
			}
			return err
		})
		return active, standby
	}
	first, second := active()
	if configured, err := second.client.Configure(t.Context(), first.name, api.MemberSettings{Drained: &yes, Preference: &high}); err != nil || configured.StillActive != "" {
		t.Fatalf("drain the active one: %+v, %v", configured, err)
	}
	if now, _ := active(); now != second {
		t.Fatalf("%s is active after %s was drained", now.name, first.name)
	}
	// A new table changes nothing of that.
	if _, err := first.client.Write(t.Context(), api.Write{ID: api.NewID(), Replace: &ipvs.Document{Services: []ipvs.Service{}}}); err != nil {
		t.Fatal(err)
	}
	status, err := nodes[2].client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range status.Nodes {
		if n.Name == first.name && (n.Eligible || !n.Drained || n.Preference != high || !strings.Contains(fmt.Sprint(n.Obstacles), "drained by the operator")) {
			t.Errorf("status of the drained one: %+v", n)
		}
	}
	if err := second.client.Transfer(t.Context(), first.name); api.KindOf(err) != api.Refused || !strings.Contains(err.Error(), "drained by the operator") {
		t.Errorf("transfer to the drained one: %v", err)
	}
	// Now nobody is fit, and the one that serves goes on.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	configured, err := first.client.Configure(ctx, second.name, api.MemberSettings{Drained: &yes})
	if err != nil || !strings.Contains(configured.StillActive, first.name+": drained by the operator") {
		t.Errorf("drain the last: %+v, %v", configured, err)
	}
	if _, err := first.client.Configure(t.Context(), first.name, api.MemberSettings{Drained: &no}); err != nil {
		t.Fatal(err)
	}
	await(t, "the move to the one that is fit again", func(context.Context) error {
		if now, _ := active(); now != first {
			return fmt.Errorf("%s is active", now.name)
		}
		return nil
	})
	if _, err := first.client.Configure(t.Context(), second.name, api.MemberSettings{Drained: &no}); err != nil {
		t.Fatal(err)
	}
	if now, _ := active(); now != first {
		t.Errorf("%s is active after it was undrained", now.name)
	}
}

// TestStopLeavesTheKernelAlone: the master daemon runs on, perhaps beside the backup of a
// director that has given its role up.
func TestStopLeavesTheKernelAlone(t *testing.T) {
	nodes := start(t, memkernel.New())
	n := nodes[0]
	if _, err := n.client.Write(t.Context(), add(web, "rr")); err != nil {
		t.Fatal(err)
	}
	await(t, "the master daemon", func(ctx context.Context) error {
		daemons, err := n.kernel.Daemons(ctx)
		if err == nil && len(daemons) != 1 {
			err = fmt.Errorf("daemons %v", daemons)
		}
		return err
	})
	n.stop()
	daemons, err := n.kernel.Daemons(t.Context())
	if !holds(t, n, web) || err != nil || len(daemons) == 0 || daemons[0].State != ipvs.Master {
		t.Errorf("after the stop: table held %t, daemons %v, %v", holds(t, n, web), daemons, err)
	}
}
