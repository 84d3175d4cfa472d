package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// overRaft changes the connections that a node's raft opens.
func overRaft(change func(net.Conn, string) net.Conn) func(*Node) {
	return func(n *Node) {
		dial := n.streams.dial
		n.streams.dial = func(ctx context.Context, id, address string) (net.Conn, error) {
			conn, err := dial(ctx, id, address)
			if err == nil {
				conn = change(conn, id)
			}
			return conn, err
		}
	}
}

// A slowConn is a link that takes so many bytes a second.
type slowConn struct {
	net.Conn
	rate int
}

func (c *slowConn) NetConn() net.Conn { return c.Conn }

func (c *slowConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		k := min(len(p), 64<<10)
		time.Sleep(time.Duration(k) * time.Second / time.Duration(c.rate)) // the link's own time
		m, err := c.Conn.Write(p[:k])
		n += m
		if err != nil {
			return n, err
		}
		p = p[k:]
	}
	return n, nil
}

// TestLargeCommandsOverASlowLink: as a batch they take longer than raft's timers, and
// must not be sent again and again in front of everything else.
func TestLargeCommandsOverASlowLink(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	var nodes []*running
	for i := range 3 {
		cfg := b.config(i+1, 3)
		// Timers for a busy machine; the batch takes two seconds.
		cfg.Profile.Heartbeat, cfg.Profile.Election, cfg.Profile.LeaderLease = 600*time.Millisecond, 600*time.Millisecond, 500*time.Millisecond
		nodes = append(nodes, b.run(cfg, overRaft(func(conn net.Conn, _ string) net.Conn { return &slowConn{conn, slowestRate} })))
	}
	formed(t, nodes...)
	leader, _ := leaderOf(nodes...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			if _, _, err := leader.Propose(ctx, []byte(strings.Repeat("x", MaxCommand))); err != nil {
				t.Errorf("a large command: %v", err)
			}
		})
	}
	writers.Wait()
	if _, _, err := leader.Propose(ctx, []byte("small")); err != nil {
		t.Errorf("a small command: %v", err)
	}
}

// A heldConn keeps what the peer says while its gate is shut.
type heldConn struct {
	net.Conn
	gate *gate
}

type gate struct {
	shut atomic.Bool
	held atomic.Int32
	pass chan struct{} // lets one held read go; closed at the end
}

func (c *heldConn) NetConn() net.Conn { return c.Conn }

func (c *heldConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.gate.shut.Load() {
		c.gate.held.Add(1)
		<-c.gate.pass
	}
	return n, err
}

// TestAnOldLeaderDoesNotRead: an answer to what was asked before the next leader was
// elected arrives late. It must not let the old leader read what is no longer so.
func TestAnOldLeaderDoesNotRead(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	var nodes []*running
	gates := map[string]*gate{}
	for i := range 3 {
		cfg := b.config(i+1, 3)
		cfg.Profile = Profile{Heartbeat: time.Second, Election: time.Second, LeaderLease: time.Second, Commit: 5 * time.Millisecond, Transport: 4 * time.Second}
		g := &gate{pass: make(chan struct{})}
		r := b.run(cfg, overRaft(func(conn net.Conn, _ string) net.Conn { return &heldConn{conn, g} }))
		nodes, gates[r.ID()] = append(nodes, r), g
	}
	formed(t, nodes...)
	old, followers := leaderOf(nodes...)
	next := followers[0]
	propose(t, old, "old")
	if _, err := old.ReadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first write everywhere", func() bool { return followers[0].fsm.has("old") && followers[1].fsm.has("old") })
	// The old leader hears nothing from now on but what was under way.
	id, held := old.ID(), gates[old.ID()]
	next.silent.Store(&id)
	held.shut.Store(true)
	defer close(held.pass)
	defer held.shut.Store(false)
	eventually(t, "an answer under way", func() bool { return held.held.Load() > 0 })
	order := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(old.id), Addr: []byte(old.cfg.advertised())}}
	if err := followers[1].transport.TimeoutNow(raft.ServerID(next.id), raft.ServerAddress(next.id+"@"+next.cfg.advertised()), &order, &raft.TimeoutNowResponse{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next leader", next.isLeader)
	written := propose(t, next, "new")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	late := make(chan struct{})
	go func() {
		defer close(late)
		time.Sleep(20 * time.Millisecond) // the read has begun
		select {
		case held.pass <- struct{}{}:
		case <-ctx.Done():
		}
	}()
	index, err := old.readIndexHere(ctx)
	<-late
	if err == nil && index < written {
		t.Errorf("the old leader reads index %d after write %d was acknowledged", index, written)
	}
}

// stall makes the disk of a node's log hang until the function that it returns is
// called.
func stall(t *testing.T, n *Node) (resume func()) {
	t.Helper()
	conn := reflect.ValueOf(n.store.BoltStore).Elem().FieldByName("conn")
	db := *(**bbolt.DB)(unsafe.Pointer(conn.UnsafeAddr()))
	tx, err := db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() { _ = tx.Rollback() })
}

// TestUncommittedRemovalIsNoVerdict: while the removal of a node is not committed it
// may never be, and the node must not give itself up for ever.
func TestUncommittedRemovalIsNoVerdict(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	if _, err := leader.ReadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	resume := stall(t, followers[0].Node)
	defer resume()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := leader.RemoveMember(ctx, followers[1].ID()); !errors.Is(err, ErrUnknown) {
		t.Errorf("remove with a hanging disk: %v, want ErrUnknown", err)
	}
	_, err := inLead(t.Context(), leader.Node, func(context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return leader.admit(ctx, joinRequest{entry: followers[1].self(), Member: true})
	})
	if err == nil || errors.Is(err, ErrRemoved) {
		t.Errorf("the verdict is %v before the removal is committed", err)
	}
	resume()
	<-followers[1].done
	if !errors.Is(followers[1].err, ErrRemoved) {
		t.Errorf("after it: %v, want ErrRemoved", followers[1].err)
	}
}

func TestRemovedNonVoterStaysAway(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	leader, _ := leaderOf(nodes...)
	for i := range caughtUpGap + 10 {
		propose(t, leader, fmt.Sprint(i))
	}
	fourth := b.run(b.config(4, 0), func(n *Node) { // raft cannot reach it: it stays without a vote
		judge := n.port.judge
		n.port.judge = func(from preface) string {
			if from.Stream == streamRaft {
				return "deaf"
			}
			return judge(from)
		}
	})
	eventually(t, "a non-voter that knows it", func() bool {
		s, ok := leader.server(fourth.ID())
		return ok && s.Suffrage == raft.Nonvoter && fourth.identity.get().Member
	}, leader)
	if err := leader.RemoveMember(t.Context(), fourth.ID()); err != nil {
		t.Fatal(err)
	}
	<-fourth.done
	if !errors.Is(fourth.err, ErrRemoved) {
		t.Errorf("Run: %v, want ErrRemoved", fourth.err)
	}
}

// TestLoneNodeMoves: a node that leads itself notes its new address too.
func TestLoneNodeMoves(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	cfg := b.config(1, 1)
	first := b.run(cfg)
	formed(t, first)
	first.stop()
	cfg.Address = b.config(5, 1).Address
	moved := b.run(cfg)
	formed(t, moved)
	eventually(t, "the new address", func() bool {
		s, ok := moved.server(moved.ID())
		return ok && string(s.Address) == cfg.advertised()
	}, moved)
	// Its old address is free for another.
	next := b.config(1, 0)
	next.Node, next.Join = "d2", []string{"127.0.0.5"}
	formed(t, moved, b.run(next))
}

// TestOneOfTwoCopiesStops: the copy was admitted as a move while the original was
// off. When that comes back, one of them must go.
func TestOneOfTwoCopiesStops(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	original := followers[0]
	eventually(t, "the book", func() bool { _, err := os.Stat(original.book.path); return err == nil })
	original.kill()
	cfg := original.cfg
	cfg.Address, cfg.DataDir = b.config(6, 3).Address, t.TempDir()
	if err := os.CopyFS(cfg.DataDir, os.DirFS(original.cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	copied := b.run(cfg)
	formed(t, leader, followers[1], copied)
	back := b.run(original.cfg)
	select {
	case <-back.done:
	case <-copied.done:
		t.Error("the one that the members know stops")
	case <-time.After(patience):
		t.Fatal("both run on")
	}
	if !errors.Is(back.err, ErrCopied) || !strings.Contains(back.err.Error(), "delete it") {
		t.Errorf("Run: %v, want words about a copy", back.err)
	}
	formed(t, leader, followers[1], copied)
	// One that could ask nobody at its start is told by the leader.
	_, err := inLead(t.Context(), leader.Node, func(ctx context.Context) (string, error) {
		return leader.admit(ctx, joinRequest{entry: back.self(), Member: true})
	})
	if !errors.Is(err, ErrCopied) {
		t.Errorf("the leader's verdict: %v, want ErrCopied", err)
	}
}

// TestExpectZeroWithdraws: others wait for a proposal as long as it stands.
func TestExpectZeroWithdraws(t *testing.T) {
	b := newBed(t, 1)
	cfg := b.config(1, 0)
	cfg.FSM, cfg.Applied = &list{}, func() uint64 { return 0 }
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	own := pledge{Founder: n.id, Address: n.cfg.advertised(), ClusterID: "x"}
	rec, err := n.identity.update(func(r *record) error { r.Pledge = &own; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.found(t.Context(), rec.Pledge, nil); err != nil {
		t.Fatal(err)
	}
	if p := n.identity.get().Pledge; p != nil {
		t.Errorf("it still proposes: %+v", p)
	}
}

// TestComesBackQuickly: the longer a node was away, the longer raft sleeps between two
// attempts to reach it.
func TestComesBackQuickly(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	followers[0].kill()
	propose(t, leader, "meanwhile")
	time.Sleep(6 * time.Second) // away
	back := b.run(followers[0].cfg)
	began := time.Now()
	eventually(t, "what it has missed", func() bool { return back.fsm.has("meanwhile") }, leader, back)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it lacked a change for %v", took)
	}
}

// TestWitnessWaitsForItsDirector: the only director that is left needs a long
// snapshot. The witness that leads sends it, and then gives leadership away.
func TestWitnessWaitsForItsDirector(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3)
	var slowly atomic.Pointer[string]
	tweaks := []func(*Node){
		func(n *Node) {
			n.raftCfg.SnapshotThreshold, n.raftCfg.TrailingLogs, n.raftCfg.SnapshotInterval = 50, 10, 20*time.Millisecond
		},
		overRaft(func(conn net.Conn, id string) net.Conn {
			if to := slowly.Load(); to != nil && *to == id {
				return &slowConn{conn, 512 << 10}
			}
			return conn
		}),
	}
	var nodes []*running
	for i := range 3 {
		cfg := b.config(i+1, 3)
		cfg.Witness = i == 2
		nodes = append(nodes, b.run(cfg, tweaks...))
	}
	formed(t, nodes...)
	first, second, witness := nodes[0], nodes[1], nodes[2]
	eventually(t, "a director that leads", func() bool { s := witness.State(); return s.Leader != "" && s.Leader != witness.ID() })
	second.kill()
	for i := range 100 {
		insist(t, witness, fmt.Sprint(i)+strings.Repeat("x", 16<<10))
	}
	first.kill()
	id := second.ID()
	slowly.Store(&id)
	back := b.run(second.cfg, tweaks...)
	eventually(t, "the director leads", func() bool {
		select {
		case <-witness.done:
			t.Fatalf("the witness ended: %v", witness.err)
		default:
		}
		return back.State().IsLeader
	}, witness, back)
}

// TestRaftUsesNoPipelines: see where the transport is made.
func TestRaftUsesNoPipelines(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	r := b.run(b.config(1, 1))
	formed(t, r)
	if _, err := r.transport.AppendEntriesPipeline(raft.ServerID(r.ID()), "127.0.0.1:1"); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("got %v", err)
	}
}
