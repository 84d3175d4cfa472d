package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

// stopTimeout bounds how long raft may take to stop.
const stopTimeout = 10 * time.Second

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
