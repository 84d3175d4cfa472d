package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

// ended waits until Run of a node with a bad disk has returned, and checks how.
func (r *running) ended() {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatalf("%s: Run has not returned within %v", r.cfg.Node, patience)
	}
	if !errors.Is(r.err, ErrDiskStalled) || !strings.Contains(r.err.Error(), r.cfg.DataDir) {
		r.t.Errorf("%s: Run: %v, want ErrDiskStalled and the directory", r.cfg.Node, r.err)
	}
	if conn, err := net.Dial("tcp", r.cfg.advertised()); err == nil {
		conn.Close()
		r.t.Errorf("%s: the cluster port still accepts connections", r.cfg.Node)
	}
}

// isSilent waits until no connection of the node is open at the others.
func (r *running) isSilent(others ...*running) {
	r.t.Helper()
	for _, other := range others {
		eventually(r.t, "no connection of "+r.cfg.Node+" is open at "+other.cfg.Node, func() bool {
			other.port.mu.Lock()
			defer other.port.mu.Unlock()
			return other.port.perIP[r.cfg.Address] == 0
		})
	}
}

// write has a node propose something that may fail.
func (r *running) write() {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _, _ = r.Propose(ctx, []byte("x"))
	}()
}

func TestLeaderWhoseDiskHangs(t *testing.T) {
	t.Parallel()
	_, w, nodes := leased(t, func(c *Config) {
		c.writeLimit = writeLimit
		c.Handler = func(ctx context.Context, _, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, nil }
	})
	leader := nodes[0]
	called := make(chan struct{})
	go func() {
		defer close(called)
		_, _ = leader.Call(context.Background(), nodes[1].ID(), "hang", nil)
	}()
	resume := stall(t, leader.Node)
	defer resume()
	began := boottime.Now()
	leader.write()
	leader.ended()
	took := boottime.Now() - began
	t.Logf("Run returned %v after the write", took)
	if most := writeLimit + leaveTime + 2*time.Second; took > most {
		t.Errorf("Run returned %v after the write, want at most %v", took, most)
	}
	w.mu.Lock()
	if until := w.told[leader.cfg.Node]; until > began+took {
		t.Errorf("its lease goes on for %v", until-began-took)
	}
	w.mu.Unlock()
	leader.isSilent(nodes[2])
	select {
	case <-called:
	case <-time.After(time.Second):
		t.Error("a request under way has kept its connection")
	}
	awaitHolder(t, w, leader.cfg.Node, nodes[1:])
	propose(t, nodes[1], "goes on")
}

func TestFollowerWhoseDiskHangs(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, func(c *Config) { c.writeLimit = writeLimit })
	leader, followers := leaderOf(nodes...)
	resume := stall(t, followers[0].Node)
	defer resume()
	propose(t, leader, "goes on")
	followers[0].ended()
	followers[0].isSilent(leader, followers[1])
	propose(t, leader, "and on")
}

// TestFailingDiskIsNoPanic has raft's writes fail: a leader's append, and a follower's
// new term.
func TestFailingDiskIsNoPanic(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	if err := followers[0].store.BoltStore.Close(); err != nil {
		t.Fatal(err)
	}
	if err := leader.store.BoltStore.Close(); err != nil {
		t.Fatal(err)
	}
	leader.write()
	leader.ended()
	followers[0].ended()
}

func TestNodeWaitsForItsDisk(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	cfg := b.config(1, 1)
	var log lockedBuffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	cfg.Profile = leaseProfile
	cfg.Profile.Stagger = time.Nanosecond
	inTheWay := filepath.Join(cfg.DataDir, "probe")
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	r := b.run(cfg)
	eventually(t, "words", func() bool { return strings.Contains(r.State().Waiting, cfg.DataDir) }, r)
	if conn, err := net.Dial("tcp", cfg.advertised()); err == nil {
		conn.Close()
		t.Error("a node without a disk is on the cluster port")
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	formed(t, r)
	for _, want := range []string{"is a directory", "works again", "an election takes longer"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

func TestNodeWithoutADiskStops(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	cfg := b.config(1, 1)
	if err := os.MkdirAll(filepath.Join(cfg.DataDir, "probe"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := b.run(cfg)
	eventually(t, "words", func() bool { return strings.Contains(r.State().Waiting, cfg.DataDir) }, r)
	r.stop()
}

// TestAgeOfWrites: time in which nobody counts is no fault of the disk.
func TestAgeOfWrites(t *testing.T) {
	d := newDisk("/somewhere", time.Second)
	age := func(ticks int) {
		for range ticks {
			d.age()
		}
	}
	for size, ticks := range map[int]int{0: writeTicks, slowestRate: 2 * writeTicks} {
		_ = d.watch("write", size, func() error { age(ticks - 1); return nil })
		age(2)
		if err := d.failure(); err != nil {
			t.Errorf("%d bytes in time: %v", size, err)
		}
	}
	_ = d.watch("write", 0, func() error { age(writeTicks + 1); return nil })
	if err := d.failure(); !errors.Is(err, ErrDiskStalled) || !strings.Contains(err.Error(), "/somewhere") {
		t.Errorf("a late write: %v, want ErrDiskStalled and the directory", err)
	}
}
