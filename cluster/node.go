package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// cachedLogs is how many entries of the log are kept in memory for followers; each
// may be as large as MaxCommand.
const cachedLogs = 128

// A Node is one node of a cluster, founded or not. Its methods may be called from
// any goroutine.
type Node struct {
	cfg      Config
	id       string
	log      *slog.Logger
	identity *identity
	book     *book
	disk     *disk
	store    *store // with snaps: opened by Run, when the disk has proved itself
	snaps    raft.SnapshotStore
	raftCfg  *raft.Config
	port     *port
	streams  *streams
	requests *requester
	gossip   *gossip
	began    time.Time

	work      context.Context // while Run runs; set before anything is served
	started   atomic.Bool
	leaving   atomic.Bool   // Run is about to end
	stopped   chan struct{} // closed when Run ends
	closeOnce sync.Once
	raft      atomic.Pointer[raft.Raft] // nil before Run
	transport *transport

	// Written by runPeers alone.
	seen    atomic.Pointer[map[string]hello] // answers of the last round
	waiting atomic.Pointer[string]
	refused string                 // by a member, in the last round; of runPeers alone
	asking  atomic.Pointer[string] // the cluster being asked for admission; nil: none

	seenState  atomic.Int32 // written by runPeers; stateUnasked at first
	forced     atomic.Bool  // ask the leader even if all seems well
	pingPeers  chan struct{}
	pingLead   chan struct{}
	pingLease  chan struct{}
	guard      guard
	gauge      gauge
	lease      lease
	freedBy    atomic.Pointer[freedBy]            // the last that gave a lease up and told this node
	told       atomic.Pointer[map[string]Fitness] // of the other directors, by the leader's word; never written to
	succession succession                         // of runLease alone
	yielded    atomic.Int64                       // boot time until which this node leaves an election to another
	stands     atomic.Int64                       // until when an election for which this node stands may bring it the lease at once
	tenures    tenures
	ops        chan op
	stuckSince atomic.Pointer[time.Time] // first write refused by an unfinished transfer
	barrier    atomic.Uint64             // the term whose barrier is done

	// Of runLead alone.
	removed   []string  // ids of members that this node has removed
	keepUntil time.Time // no attempt to give leadership away before
	attempts  int       // that have failed in a row

	waitersMu sync.Mutex
	waiters   map[string]waiter // by id

	// crashAt lets a test stop the node at a step of the founding. Nil in use.
	crashAt func(step string) error
}

// New locks the data directory of a node and reads who it is. It starts nothing; Run
// does. On a disk that hangs it waits, and says so in the log. It fails
// when the configuration is invalid, when another process uses the directory, and
// with ErrRemoved or ErrCopied when the directory's node must not come back.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cluster configuration: %w", err)
	}
	var tlsConfig *tls.Config
	if cfg.Secret != nil {
		if tlsConfig, err = cfg.Secret.TLS(); err != nil {
			return nil, fmt.Errorf("cluster port: %w", err)
		}
	}
	disk := newDisk(cfg.DataDir, cfg.writeLimit)
	slow := time.AfterFunc(disk.limit, func() {
		cfg.Logger.Warn("this node does not start before the disk of its data directory answers", "directory", disk.dir)
	})
	defer slow.Stop()
	identity, err := openIdentity(disk, cfg.Cluster)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:       cfg,
		id:        identity.get().ID,
		log:       cfg.Logger,
		identity:  identity,
		disk:      disk,
		book:      openBook(disk, cfg.Logger),
		began:     time.Now(),
		stopped:   make(chan struct{}),
		pingPeers: make(chan struct{}, 1),
		pingLead:  make(chan struct{}, 1),
		pingLease: make(chan struct{}, 1),
		guard:     guard{now: cfg.Now},
		gauge:     gauge{steady: steadyTime},
		tenures:   tenures{tell: cfg.OnTenure},
		ops:       make(chan op),
		waiters:   map[string]waiter{},
	}
	n.book.configured = func(id string) string { s, _ := n.server(id); return string(s.Address) }
	waiting := "starting"
	n.waiting.Store(&waiting)
	n.raftCfg = n.raftConfig()
	n.requests = &requester{
		idle:  map[string][]idleConn{},
		scope: func() string { return n.identity.get().ClusterID },
		dial: func(ctx context.Context, id, address string) (net.Conn, error) {
			return n.dial(ctx, streamRequest, id, address)
		},
	}
	n.streams = newStreams(cfg.advertised(), func(ctx context.Context, id, address string) (net.Conn, error) {
		return n.dial(ctx, streamRaft, id, address)
	})
	n.port = &port{
		address: cfg.Address, tls: tlsConfig, log: cfg.Logger, id: n.id, judge: n.judge,
		known: n.knows, conns: map[net.Conn]netip.Addr{}, perIP: map[netip.Addr]int{},
		dialed: map[*dialedConn]bool{}, complaints: map[string]bool{}, strangers: map[string]stranger{},
	}
	n.gossip = &gossip{cfg: cfg, id: n.id, log: cfg.Logger, peers: n.addresses, metas: map[string]string{}}
	return n, nil
}

// raftConfig returns raft's settings. Snapshots are frequent because the state is
// small. A batch of commands is one write to the disk and one message: as many as
// wait, but so few that the largest pass within the transport's timeout.
func (n *Node) raftConfig() *raft.Config {
	p := n.cfg.Profile
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id)
	c.HeartbeatTimeout, c.ElectionTimeout = p.Heartbeat, p.Election
	c.LeaderLeaseTimeout, c.CommitTimeout = p.LeaderLease, p.Commit
	c.MaxAppendEntries = 64
	c.TrailingLogs, c.SnapshotThreshold, c.SnapshotInterval = 2048, 1024, 10*time.Second
	c.ShutdownOnRemove = false // this package notices removal itself, on all nodes alike
	c.NoLegacyTelemetry = true
	c.Logger = raftLogger(n.log)
	return c
}

// openStores opens raft's log and its snapshots.
func (n *Node) openStores() error {
	if rec := n.identity.get(); rec.Member {
		// An empty log under a member's id would forget what it voted and acknowledged.
		if _, err := os.Stat(filepath.Join(n.cfg.DataDir, "raft.db")); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("data directory %s: the log raft.db of a member is missing; delete the directory to join as a new node", n.cfg.DataDir)
		}
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path:                    filepath.Join(n.cfg.DataDir, "raft.db"),
		BoltOptions:             &bbolt.Options{Timeout: time.Second},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.DataDir, 2, n.raftCfg.Logger)
	if err != nil {
		return errors.Join(fmt.Errorf("raft snapshots: %w", err), bolt.Close())
	}
	n.store, n.snaps = &store{bolt, n.disk}, snaps
	if len(n.identity.get().Servers) == 0 {
		return nil
	}
	// A founder that stopped while it wrote the first configuration has a term but
	// no log. Nobody else can have had a term then: begin that write again.
	last, err := bolt.LastIndex()
	if err == nil && last == 0 {
		var list []*raft.SnapshotMeta
		if list, err = snaps.List(); err == nil && len(list) == 0 {
			err = bolt.SetUint64([]byte("CurrentTerm"), 0)
		}
	}
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	return nil
}

// Close releases the data directory of a node whose Run is never called. After Run
// it does nothing.
func (n *Node) Close() error {
	var err error
	n.closeOnce.Do(func() {
		if n.store != nil {
			err = n.store.Close()
		}
		err = errors.Join(err, n.identity.close())
	})
	return err
}

// ID returns this node's id, 16 hexadecimal digits that live as long as the data
// directory.
func (n *Node) ID() string { return n.id }

// indexes returns those of the newest entry that is committed, and of the newest, and
// the term, read last: while it is not a later one, this node has truncated nothing.
func (n *Node) indexes() (committed, last, term uint64) {
	r := n.raft.Load()
	if r == nil { // it has begun to work while it is being made
		return 0, 0, 0
	}
	committed, last = r.CommitIndex(), r.LastIndex()
	return committed, last, r.CurrentTerm()
}

// serve serves one accepted connection.
func (n *Node) serve(ctx context.Context, conn net.Conn, from preface) {
	if from.Stream == streamRaft {
		n.streams.serve(conn)
		return
	}
	serveRequests(ctx, conn, func(ctx context.Context, head requestHead, body []byte) ([]byte, error) {
		return n.answer(ctx, from, head, body)
	})
}

// dial connects to a node; "" as id takes whoever is at address.
func (n *Node) dial(ctx context.Context, stream, id, address string) (net.Conn, error) {
	conn, _, err := n.port.dial(ctx, address, preface{
		Cluster: n.cfg.Cluster, ClusterID: n.identity.get().ClusterID,
		ID: n.id, Address: n.cfg.advertised(), To: id, Stream: stream,
	})
	return conn, err
}

// addresses returns the cluster addresses of the join list and of all members.
func (n *Node) addresses() []string {
	addresses := append([]string(nil), n.cfg.Join...)
	for _, e := range n.book.list() {
		addresses = append(addresses, e.Address)
	}
	return addresses
}

// knows reports whether ip is a member's.
func (n *Node) knows(ip netip.Addr) bool {
	for _, address := range n.addresses() {
		if a, err := netip.ParseAddrPort(address); err == nil && a.Addr() == ip {
			return true
		}
	}
	return false
}

// crash stops Run at a step, when a test wants it.
func (n *Node) crash(step string) error {
	if n.crashAt == nil {
		return nil
	}
	return n.crashAt(step)
}
