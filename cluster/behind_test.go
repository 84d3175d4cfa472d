package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/fsm"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// A tableMachine is the real state machine, which tells what it was restored from.
type tableMachine struct {
	*fsm.Machine
	restored atomic.Uint64 // log index of the last snapshot
}

func (m *tableMachine) Restore(r io.ReadCloser) error {
	err := m.Machine.Restore(r)
	if err == nil {
		m.restored.Store(m.State().Index())
	}
	return err
}

// A tableNode is a node whose state is a table.
type tableNode struct {
	*running
	machine *tableMachine
}

func (b *bed) runTable(cfg Config, tweaks ...func(*Node)) tableNode {
	b.t.Helper()
	m := &tableMachine{Machine: fsm.New(cfg.OnChange)}
	return tableNode{b.run(cfg, append(tweaks, func(n *Node) {
		n.cfg.FSM, n.cfg.Applied = m, func() uint64 { return m.State().Index() }
	})...), m}
}

func manyDestinations(services int) *ipvs.Document {
	doc := &ipvs.Document{}
	for i := range services {
		s := ipvs.Service{Scheduler: "wrr", Key: ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 80))}
		for d := range 10 {
			s.Destinations = append(s.Destinations, ipvs.Destination{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, 0, byte(d)}), 80), Forward: ipvs.Masq, Weight: 1})
		}
		doc.Services = append(doc.Services, s)
	}
	return doc
}

// write proposes c and returns how long the longest of its entries took.
func (n tableNode) write(t *testing.T, c fsm.Command) (longest time.Duration) {
	entries, err := c.Entries()
	if err != nil {
		t.Error(err)
	}
	for _, entry := range entries {
		began := time.Now()
		_, answer, err := n.Propose(t.Context(), entry)
		longest = max(longest, time.Since(began))
		if err != nil {
			t.Errorf("write %s: %v", c.ID, err)
		} else if result, err := fsm.DecodeResult(answer); err != nil || result.Rejected != nil {
			t.Errorf("write %s: %+v, %v", c.ID, result, err)
		}
	}
	return longest
}

// TestCatchesUpWhileOthersWrite: a follower comes back over a slow link and needs a
// snapshot of megabytes. Meanwhile the leader serves writes and keeps its lease.
func TestCatchesUpWhileOthersWrite(t *testing.T) {
	t.Parallel()
	const services, kept, missed, writers = 4000, 600, 800, 50
	var tenures struct {
		sync.Mutex
		all []Tenure
	}
	seen := func() []Tenure {
		tenures.Lock()
		defer tenures.Unlock()
		return tenures.all[:len(tenures.all):len(tenures.all)]
	}
	var slowly atomic.Pointer[string] // to whom the link is slow
	tweaks := []func(*Node){
		func(n *Node) {
			n.raftCfg.SnapshotThreshold, n.raftCfg.TrailingLogs, n.raftCfg.SnapshotInterval = 100, kept, 20*time.Millisecond
		},
		overRaft(func(conn net.Conn, id string) net.Conn {
			if to := slowly.Load(); to != nil && *to == id {
				return &slowConn{conn, slowestRate}
			}
			return conn
		}),
	}
	b := newBed(t, 3)
	nodes := map[string]tableNode{}
	var all []*running
	for i := range 3 {
		cfg := b.config(i+1, 3)
		// Only what waits for the snapshot may be late, not what waits for a busy machine.
		cfg.Profile = Profile{
			Lease: time.Second, Heartbeat: 2500 * time.Millisecond, Election: 2500 * time.Millisecond, LeaderLease: time.Second,
			Stagger: 100 * time.Millisecond, Commit: 5 * time.Millisecond, Transport: 2500 * time.Millisecond,
		}
		cfg.OnTenure = func(tenure Tenure) {
			tenures.Lock()
			defer tenures.Unlock()
			tenures.all = append(tenures.all, tenure)
		}
		n := b.runTable(cfg, tweaks...)
		nodes[n.ID()], all = n, append(all, n.running)
	}
	formed(t, all...)
	eventually(t, "a lease", func() bool { return len(seen()) > 0 }, all...)
	first, followers := leaderOf(all...)
	leader, behind := nodes[first.ID()], nodes[followers[0].ID()]
	doc := manyDestinations(services)
	leader.write(t, fsm.Command{ID: "table", Replace: doc})
	behind.kill()
	last := behind.machine.State().Index()

	weight := func(n int) fsm.Command {
		s := doc.Services[n%services]
		d := s.Destinations[n%10]
		d.Weight = int32(n + 2)
		return fsm.Command{ID: fmt.Sprint("weight-", n), Changes: []ipvs.Change{{Op: ipvs.SetDestination, Key: s.Key, Destination: &d}}}
	}
	var away sync.WaitGroup
	for w := range writers {
		away.Go(func() {
			for n := w; n < missed; n += writers {
				leader.write(t, weight(n))
			}
		})
	}
	away.Wait()
	eventually(t, "a log that begins after what the follower has", func() bool {
		begins, err := leader.store.FirstIndex()
		return err == nil && begins > last+1
	}, all...)
	snapshots, err := leader.snaps.List()
	if err != nil {
		t.Fatal(err)
	}
	transfer := time.Duration(snapshots[0].Size) * time.Second / slowestRate
	id, before := behind.ID(), len(seen())
	slowly.Store(&id)

	var most time.Duration
	written := 0
	var writer sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	stop := func() { cancel(); writer.Wait() }
	defer stop()
	writer.Go(func() {
		pace := time.NewTicker(25 * time.Millisecond) // what is kept of the log outlasts the snapshot
		defer pace.Stop()
		for ctx.Err() == nil {
			<-pace.C
			most = max(most, leader.write(t, weight(missed+written)))
			written++
		}
	})
	began := time.Now()
	back := b.runTable(behind.cfg, tweaks...)
	eventually(t, "restored", func() bool { return back.machine.restored.Load() > last }, leader.running, back.running)
	now := leader.machine.State().Index()
	eventually(t, "what was written meanwhile", func() bool { return back.machine.State().Index() >= now }, leader.running, back.running)
	took := time.Since(began)
	stop()
	t.Logf("a snapshot of %d bytes; caught up in %v, while %d writes took at most %v", snapshots[0].Size, took, written, most)
	if took < transfer || transfer < 2*time.Second {
		t.Errorf("the follower caught up in %v, and its snapshot takes %v: too quick to tell whether the leader waits for it", took, transfer)
	}
	if most > transfer*3/4 {
		t.Errorf("a write took %v while a snapshot was sent for %v", most, transfer)
	}
	if changed := seen()[before:]; len(changed) > 0 {
		t.Errorf("the lease did not stay where it was: %+v", changed)
	}
	var have, want fsm.State
	eventually(t, "all that was written", func() bool {
		have, want = back.machine.State(), leader.machine.State()
		return have.Index() == want.Index()
	}, leader.running, back.running)
	if have.Hash() != want.Hash() {
		t.Errorf("at log index %d the follower holds revision %d with %d destinations, the leader revision %d with %d", have.Index(),
			have.Revision(), have.Table().Destinations(), want.Revision(), want.Table().Destinations())
	}
}
