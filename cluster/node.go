package cluster

import (
	"cmp"
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
	"golang.org/x/sync/errgroup"
)

// cachedLogs is how many entries of the log are kept in memory for followers; each
// may be as large as MaxCommand.
const cachedLogs = 128

// stopTimeout bounds how long raft may take to stop.
const stopTimeout = 10 * time.Second

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
	told       atomic.Pointer[map[string]Fitness] // of the other directors, by the leader's word; never written to
	succession succession                         // of runLease alone
	yielded    atomic.Int64                       // boot time until which this node leaves an election to another
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

// awaitDisk returns when the disk of the data directory has proved itself; until then
// nobody hears of this node. When ctx ends first it returns its error.
func (n *Node) awaitDisk(ctx context.Context) error {
	logged := false
	election, err := n.disk.prove(ctx, func(err error) {
		reason := fmt.Sprintf("the disk of the data directory %s does not work, and this node stays away from the cluster until it does: %v", n.disk.dir, err)
		n.waiting.Store(&reason)
		if !logged {
			n.log.Warn("this node stays away from the cluster until the disk of its data directory works", "directory", n.disk.dir, "error", err)
			logged = true
		}
		n.cfg.OnChange()
	})
	if err != nil {
		return err
	}
	if logged {
		n.log.Info("the disk of the data directory works again", "directory", n.disk.dir)
	}
	if stagger := n.cfg.Profile.Stagger; stagger > 0 && election > stagger {
		n.log.Warn("an election takes longer on this disk than the next in rank waits, so that two may stand at once when the leader is lost; use a quicker disk, a slower profile, or a longer cluster.timing.stagger",
			"directory", n.disk.dir, "election", election.Round(time.Millisecond), "waits", stagger)
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

// Run runs the node until ctx ends; then a leader gives leadership away first, and
// Run returns nil. It returns an error that matches ErrRemoved when the node was
// removed from its cluster, ErrCopied when another node runs with its identity,
// ErrDiskStalled when its disk does not take a write, and other errors when a part
// fails. After ErrDiskStalled nothing of the node is heard on the network, but a
// goroutine may still hang in a write, and the data directory stays locked by this
// process. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	if n.started.Swap(true) {
		return errors.New("cluster: Run was called before")
	}
	defer close(n.stopped)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	watcher.Go(func() { n.disk.run(watch) })
	ended := make(chan error, 1)
	go func() { ended <- n.run(ctx) }()
	var err error
	select {
	case err = <-ended:
	case <-n.disk.failed:
		// What waits for the disk may never end: raft, bolt, and who asks them. A process
		// with a thread in such a write keeps its sockets open even when it has ended.
		n.port.close()
		select {
		case <-ended:
		case <-time.After(leaveTime):
		}
	}
	if failure := n.disk.failure(); failure != nil {
		return failure
	}
	return err
}

// run is Run on a disk that works.
func (n *Node) run(ctx context.Context) error {
	if n.cfg.Secret == nil && !n.cfg.Address.IsLoopback() {
		n.log.Warn("the cluster port and gossip are not authenticated; set cluster.secret_file on all nodes")
	}
	if n.awaitDisk(ctx) != nil {
		return n.Close()
	}
	if err := n.disk.watch("open raft's log", 0, n.openStores); err != nil {
		return errors.Join(err, n.Close())
	}
	if err := n.port.listen(n.cfg.advertised()); err != nil {
		return errors.Join(err, n.Close())
	}
	// The parts outlive ctx: leadership is given away while they still work.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, work := errgroup.WithContext(work)
	n.work = work
	n.port.serve = func(conn net.Conn, from preface) { n.serve(work, conn, from) }
	err := n.start(ctx)
	if err == nil {
		group.Go(func() error { return n.port.run(work) })
		group.Go(func() error { return n.runPeers(work) })
		group.Go(func() error { return n.runVotes(work) })
		group.Go(func() error { return n.runLead(work) })
		group.Go(func() error { return n.runLease(work) })
		group.Go(func() error { return n.observe(work) })
		group.Go(func() error { return n.gossip.run(work) })
		group.Go(func() error {
			select {
			case <-work.Done():
				return nil
			case <-n.disk.failed:
				return n.disk.err
			}
		})
		select {
		case <-ctx.Done():
			n.handOver()
		case <-work.Done():
		}
	}
	stop()
	n.port.close()
	stopErr := n.stopRaft()
	n.requests.close()
	err = errors.Join(err, group.Wait(), stopErr)
	if stopErr == nil { // else raft may still write
		err = errors.Join(err, n.Close())
	}
	return err
}

// start starts raft. The port is bound but accepts nothing yet.
func (n *Node) start(ctx context.Context) error {
	if err := n.refuseCopy(ctx); err != nil {
		return err
	}
	logs, err := raft.NewLogCache(cachedLogs, n.store)
	if err != nil {
		return err
	}
	n.transport = &transport{awaitPeer: n.awaitPeer, guarded: make(chan raft.RPC), NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  n.streams,
		MaxPool: 3,
		// A pipeline whose reader has stopped, as it does when the peer is in a later term,
		// holds its writer for ever, and with it raft's end.
		MaxRPCsInFlight:         1,
		Timeout:                 n.cfg.Profile.Transport,
		Logger:                  n.raftCfg.Logger,
		ServerAddressProvider:   n.book,
		MsgpackUseNewTimeFormat: true,
	})}
	n.transport.herald.send, n.transport.herald.indexes = n.transport.NetworkTransport.AppendEntries, n.indexes
	if err := n.openGuard(); err != nil {
		n.transport.Close()
		return err
	}
	r, err := raft.NewRaft(n.raftCfg, n.cfg.FSM, logs, n.store, n.snaps, n.transport)
	if err != nil {
		n.transport.Close()
		return fmt.Errorf("raft: %w", err)
	}
	n.raft.Store(r)
	return n.bootstrap(n.identity.get())
}

// openGuard remembers for how long a former run may have promised, and what this one
// may promise.
func (n *Node) openGuard() error {
	n.guard.notBefore = n.cfg.Now() + n.identity.get().Promised
	if n.cfg.Profile.Lease <= n.identity.get().Promised {
		return nil
	}
	_, err := n.identity.update(func(r *record) error { r.Promised = n.cfg.Profile.Lease; return nil })
	return err
}

// refuseCopy fails when this node answers at another address already, where it was
// before or where a member knows it: then this process runs with a copy of its data
// directory.
func (n *Node) refuseCopy(ctx context.Context) error {
	last := n.book.get(n.id).Address
	n.book.learn(n.self())
	ctx, cancel := context.WithTimeout(ctx, n.probeTimeout())
	defer cancel()
	addresses := make(chan string, 1+len(n.book.list()))
	addresses <- last
	var asked sync.WaitGroup
	for _, e := range n.book.list() {
		if e.ID == n.id {
			continue
		}
		asked.Go(func() {
			h, err := n.askHello(ctx, e.ID, e.Address)
			if err != nil {
				return
			}
			for _, known := range h.Members {
				if known.ID == n.id {
					addresses <- known.Address
				}
			}
		})
	}
	asked.Wait()
	close(addresses)
	for address := range addresses {
		if address == "" || address == n.cfg.advertised() {
			continue
		}
		if _, err := n.askHello(ctx, n.id, address); err == nil {
			return fmt.Errorf("node %s (%s) already runs at %s: %w, and this one is a copy; delete it", n.id, n.cfg.Node, address, ErrCopied)
		}
	}
	return nil
}

// observe passes on that raft has changed something.
func (n *Node) observe(ctx context.Context) error {
	events := make(chan raft.Observation, 16) // full: dropped, and runPeers looks once a second
	observer := raft.NewObserver(events, false, func(o *raft.Observation) bool {
		_, isVote := o.Data.(raft.RequestVoteRequest)
		return !isVote
	})
	r := n.raft.Load()
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)
	known := ""
	for {
		n.cfg.OnChange()
		if leader := n.leader(); leader.ID != known {
			if known = leader.ID; known != "" && known != n.id {
				n.tenures.leads(cmp.Or(leader.Name, leader.ID))
			}
			if known != "" {
				n.log.Info("leader", "node", cmp.Or(leader.Name, "?"), "id", leader.ID, "term", r.CurrentTerm())
			} else {
				n.log.Warn("no leader")
			}
		}
		ping(n.pingPeers)
		ping(n.pingLead)
		ping(n.pingLease)
		select {
		case <-ctx.Done():
			return nil
		case <-events:
		case <-r.LeaderCh():
		}
	}
}

// handOver gives leadership away before this node stops, so that nobody has to
// notice its end. It does so where all transfers are made, one at a time, and waits for
// one that is under way.
func (n *Node) handOver() {
	n.leaving.Store(true)
	ctx, cancel := context.WithTimeout(n.work, n.passTime()+2*askTimeout)
	defer cancel()
	_, err := inLead(ctx, n, func(ctx context.Context) (struct{}, error) {
		best, ok := n.bestVoter(ctx, true)
		if !ok || !n.isLeader() {
			return struct{}{}, nil
		}
		return struct{}{}, n.transferTo(best.entry, n.cfg.Node+" stops")
	})
	if err != nil && n.isLeader() {
		n.log.Warn("this node stops as leader", "error", err)
	}
	n.lease.mu.Lock()
	p := n.lease.pass
	n.lease.mu.Unlock()
	if p != nil && !n.isLeader() {
		n.awaitPass(ctx, p)
	}
}

// stopRaft returns an error when raft may still write.
func (n *Node) stopRaft() error {
	r := n.raft.Load()
	if r == nil {
		return nil
	}
	future := r.Shutdown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = future.Error() // waits for raft's goroutines; is always nil
	}()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-n.disk.failed:
		_ = n.transport.Close() // it returns no error
		n.transport.CloseStreams()
		return n.disk.err
	case <-timer.C:
		return fmt.Errorf("raft has not stopped within %v", stopTimeout)
	}
	n.transport.CloseStreams() // idle outgoing connections
	n.transport.herald.close()
	return nil
}

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
