package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
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

// testProfile is as quick as two busy cores allow.
var testProfile = Profile{
	Heartbeat: 200 * time.Millisecond, Election: 200 * time.Millisecond,
	LeaderLease: 150 * time.Millisecond, Commit: 5 * time.Millisecond, Transport: 500 * time.Millisecond,
}

const patience = 20 * time.Second

// A list is a state machine: all commands in order.
type list struct {
	mu   sync.Mutex
	cmds []string
	last uint64        // index of the last command
	gate chan struct{} // when set, Apply waits for it
}

func (l *list) applied() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *list) Apply(entry *raft.Log) any {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cmds, l.last = append(l.cmds, string(entry.Data)), entry.Index
	return []byte("did " + string(entry.Data[:min(len(entry.Data), 20)]))
}

func (l *list) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cmds[:len(l.cmds):len(l.cmds)]
}

func (l *list) has(cmd string) bool {
	for _, c := range l.get() {
		if c == cmd {
			return true
		}
	}
	return false
}

func (l *list) Snapshot() (raft.FSMSnapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return snapshot{l.cmds[:len(l.cmds):len(l.cmds)], l.last}, nil
}

func (l *list) Restore(r io.ReadCloser) error {
	defer r.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	var s snapshot
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	l.cmds, l.last = s.Cmds, s.Last
	return nil
}

type snapshot struct {
	Cmds []string
	Last uint64
}

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
func (snapshot) Release() {}

// A bed is a set of nodes at 127.0.0.1, 127.0.0.2, ... on one port.
type bed struct {
	t    *testing.T
	port int
	join []string
}

// nextPort counts through ports below those that the kernel gives to outgoing
// connections: a node binds its outgoing connections too.
var nextPort atomic.Int32

func newBed(t *testing.T, hosts int) *bed {
	t.Helper()
	b := &bed{t: t}
	for b.port == 0 {
		port := 20_000 + int(nextPort.Add(2)+int32(os.Getpid()))%12_000
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue // somebody else's
		}
		l.Close()
		b.port = port
	}
	for i := range hosts {
		b.join = append(b.join, fmt.Sprintf("127.0.0.%d", i+1))
	}
	return b
}

func (b *bed) config(host, expect int) Config {
	return Config{
		Cluster: "lb", Node: fmt.Sprintf("d%d", host), DataDir: filepath.Join(b.t.TempDir(), "data"),
		Address: netip.MustParseAddr(fmt.Sprintf("127.0.0.%d", host)), Port: b.port,
		Join: b.join, Expect: expect, Profile: testProfile, Logger: testLogger(b.t),
		writeLimit: patience, // the machine may be busy
	}
}

// testLogger logs to the test when CLUSTER_TEST_LOG is set.
func testLogger(t *testing.T) *slog.Logger {
	if os.Getenv("CLUSTER_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

// A running is a node that runs.
type running struct {
	*Node
	t      *testing.T
	fsm    *list
	cancel context.CancelFunc
	done   chan struct{}
	err    error

	isCut  atomic.Bool
	silent atomic.Pointer[string] // the node whose new connections lead nowhere
	mu     sync.Mutex
	conns  []net.Conn // outgoing
}

// run starts a node; tweaks see it before Run.
func (b *bed) run(cfg Config, tweaks ...func(*Node)) *running {
	b.t.Helper()
	fsm := &list{}
	cfg.FSM, cfg.Applied = fsm, fsm.applied
	n, err := New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	r := &running{Node: n, t: b.t, fsm: fsm, done: make(chan struct{})}
	for _, dial := range []*func(context.Context, string, string) (net.Conn, error){&n.requests.dial, &n.streams.dial} {
		*dial = r.cuttable(*dial)
	}
	judge := n.port.judge
	n.port.judge = func(from preface) string {
		if r.isCut.Load() {
			return "cut off"
		}
		return judge(from)
	}
	for _, tweak := range tweaks {
		tweak(n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.err = n.Run(ctx)
	}()
	b.t.Cleanup(func() { r.cancel(); <-r.done })
	return r
}

func (r *running) cuttable(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, id, address string) (net.Conn, error) {
		if r.isCut.Load() {
			return nil, errors.New("cut off")
		}
		if silent := r.silent.Load(); silent != nil && *silent == id {
			conn, far := net.Pipe()
			r.t.Cleanup(func() { far.Close() })
			return conn, nil
		}
		conn, err := dial(ctx, id, address)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.isCut.Load() { // meanwhile
			conn.Close()
			return nil, errors.New("cut off")
		}
		r.conns = append(r.conns, conn)
		return conn, nil
	}
}

// cut severs the node from all others.
func (r *running) cut() {
	r.isCut.Store(true)
	r.mu.Lock()
	for _, conn := range r.conns {
		conn.Close()
	}
	r.conns = nil
	r.mu.Unlock()
	r.port.mu.Lock()
	defer r.port.mu.Unlock()
	for conn := range r.port.conns {
		conn.Close()
	}
}

// dropIdle makes the next request open a new connection.
func (r *running) dropIdle() {
	r.requests.close()
	r.requests.mu.Lock()
	defer r.requests.mu.Unlock()
	r.requests.closed = false
}

// kill ends the node without a word to the others.
func (r *running) kill() {
	r.t.Helper()
	r.cut()
	r.stop()
}

// stop ends the node in good order.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	<-r.done
	if r.err != nil {
		r.t.Errorf("%s: Run: %v", r.cfg.Node, r.err)
	}
}

// eventually polls until ok, and reports what is then.
func eventually(t *testing.T, what string, ok func() bool, nodes ...*running) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			for _, r := range nodes {
				t.Logf("%s: %+v", r.cfg.Node, r.State())
				select {
				case <-r.done:
					t.Logf("%s has ended: %v", r.cfg.Node, r.err)
				default:
				}
			}
			t.Fatalf("within %v: never %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// formed waits until the nodes are one cluster of exactly these voters.
func formed(t *testing.T, nodes ...*running) {
	t.Helper()
	eventually(t, "one cluster", func() bool { return isFormed(nodes) }, nodes...)
}

func isFormed(nodes []*running) bool {
	var id, leader string
	for _, r := range nodes {
		s := r.State()
		if !s.Joined || s.Leader == "" || len(s.Members) != len(nodes) || id != "" && (s.ClusterID != id || s.Leader != leader) {
			return false
		}
		id, leader = s.ClusterID, s.Leader
		for _, m := range s.Members {
			if !m.Voter || !m.Reachable {
				return false
			}
		}
		if !r.identity.get().Member {
			return false
		}
	}
	return true
}

func leaderOf(nodes ...*running) (leader *running, followers []*running) {
	for _, r := range nodes {
		if r.State().IsLeader && leader == nil {
			leader = r
		} else {
			followers = append(followers, r)
		}
	}
	if leader == nil {
		nodes[0].t.Fatal("no leader")
	}
	return leader, followers
}

func propose(t *testing.T, r *running, cmd string) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	index, response, err := r.Propose(ctx, []byte(cmd))
	if err != nil {
		t.Fatalf("%s: %v", r.cfg.Node, err)
	}
	if want := "did " + cmd; string(response) != want {
		t.Fatalf("response %q, want %q", response, want)
	}
	return index
}

// three returns a formed cluster of three.
func three(t *testing.T, tweak func(*Config)) (*bed, []*running) {
	t.Helper()
	b := newBed(t, 3)
	var nodes []*running
	for i := range 3 {
		cfg := b.config(i+1, 3)
		if tweak != nil {
			tweak(&cfg)
		}
		nodes = append(nodes, b.run(cfg))
	}
	formed(t, nodes...)
	return b, nodes
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// insist proposes until it is answered: a busy machine may cost the leader its role, and
// a command its answer.
func insist(t *testing.T, n *running, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, _, err := n.Propose(ctx, []byte(command))
		if err == nil {
			return
		}
		if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNoLeader) || ctx.Err() != nil {
			t.Errorf("propose: %v", err)
			return
		}
	}
}
