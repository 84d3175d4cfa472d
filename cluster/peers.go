package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	settledInterval   = time.Second            // between two rounds of hellos
	unsettledInterval = 200 * time.Millisecond // while this node is no member, or alone
	electionPause     = 50 * time.Millisecond  // from a change until a settled node asks its peers
)

// What the last round of hellos said of the peers of a node that has no cluster.
const (
	stateUnasked int32 = iota // no round has ended
	stateNone                 // no reachable peer has a cluster
	stateSome
)

// A target is whom to say hello to; "" as id takes whoever is at address.
type target struct{ id, address string }

// runPeers keeps asking the peers how they are. What they say makes members
// reachable or not, and tells a node without a cluster whether to found or to join.
func (n *Node) runPeers(ctx context.Context) error {
	var last State
	for ctx.Err() == nil {
		if err := n.markMember(); err != nil {
			return err
		}
		before := n.identity.get().Pledge
		answers := n.sayHello(ctx, n.targets())
		if ctx.Err() != nil {
			return nil
		}
		n.saveBook(answers)
		n.keepWarm(ctx, answers)
		forced := n.forced.Swap(false)
		settled := n.settled()
		waiting := ""
		if !settled || forced {
			var err error
			waiting, err = n.settle(ctx, before, slices.Collect(maps.Values(answers)))
			if err != nil {
				return err
			}
		}
		if strangers := n.port.keptOut(); waiting != "" && len(strangers) > 0 {
			waiting += "; kept out: " + strings.Join(strangers, "; ")
		}
		n.waiting.Store(&waiting)
		n.requests.prune()
		state := n.State()
		state.LeaderAge = 0
		if !reflect.DeepEqual(state, last) {
			n.warnOfTimings(last, state)
			last = state
			n.cfg.OnChange()
		}
		interval := settledInterval
		if !settled {
			interval = unsettledInterval
		}
		select {
		case <-ctx.Done():
		case <-n.pingPeers:
			if settled {
				n.afterElection(ctx)
			}
		case <-time.After(interval):
		}
	}
	return nil
}

// afterElection waits a moment. A change of the leader is what settled nodes hear of
// most; then they all have better things to do than to ask one another how they are.
func (n *Node) afterElection(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(electionPause):
	}
}

// warnOfTimings logs that a member's timings are not this node's, when that is new.
func (n *Node) warnOfTimings(last, state State) {
	for _, m := range state.Members {
		was := slices.ContainsFunc(last.Members, func(o Member) bool { return o.ID == m.ID && o.OtherTimings == m.OtherTimings })
		if m.OtherTimings != "" && !was {
			n.log.Warn("a member has other timings; all nodes need the same profile", "node", m.Name, "there", m.OtherTimings)
		}
	}
}

// targets are the members, and for a node that is not settled everybody who may
// know the cluster.
func (n *Node) targets() []target {
	set := map[target]bool{}
	for _, s := range n.servers() {
		set[target{string(s.ID), string(s.Address)}] = true
		if e := n.book.get(string(s.ID)); e.Address != "" {
			set[target{e.ID, e.Address}] = true
		}
	}
	if !n.settled() || n.forced.Load() {
		for _, address := range n.cfg.Join {
			set[target{"", address}] = true
		}
		for _, address := range n.gossip.addresses() {
			set[target{"", address}] = true
		}
		if p := n.identity.get().Pledge; p != nil {
			set[target{"", p.Address}] = true
		}
	}
	maps.DeleteFunc(set, func(t target, _ bool) bool {
		return t.id == n.id || t.address == n.cfg.advertised()
	})
	return slices.Collect(maps.Keys(set))
}

// sayHello asks all targets at once and returns the answers by id. A node is
// reachable when it answered in the last round.
func (n *Node) sayHello(ctx context.Context, targets []target) map[string]hello {
	ctx, cancel := context.WithTimeout(ctx, n.probeTimeout())
	defer cancel()
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		answers = map[string]hello{}
		refused string
	)
	for _, t := range targets {
		wg.Go(func() {
			h, err := n.askHello(ctx, t.id, t.address)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case t.id != "" && errors.Is(err, ErrRefused):
				refused = "a member refuses this node: " + err.Error()
			case err == nil && h.ID != n.id:
				answers[h.ID] = h
			}
		})
	}
	wg.Wait()
	n.refused = refused
	if ctx.Err() != nil && context.Cause(ctx) == context.Canceled {
		return answers
	}
	seen := stateNone
	for _, h := range answers {
		if h.ClusterID != "" {
			seen = stateSome
		}
	}
	n.seenState.Store(seen)
	n.seen.Store(&answers)
	return answers
}

// keepWarm has connections to the voters that answer, so that a vote, the first
// messages of a new leader and its first lease requests need no handshake.
func (n *Node) keepWarm(ctx context.Context, answers map[string]hello) {
	ctx, cancel := context.WithTimeout(ctx, n.probeTimeout())
	defer cancel()
	var peers []target
	others, _ := n.otherVoters()
	for _, s := range others {
		if _, ok := answers[string(s.ID)]; ok {
			peers = append(peers, target{string(s.ID), n.member(s).Address})
		}
	}
	n.streams.keep(ctx, peers)
	n.requests.keep(ctx, peers)
}

// awaitPeer returns when the node with that id has answered a hello that was sent
// after now, or when this node leads it no more.
func (n *Node) awaitPeer(id string) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for before, rounds := n.seen.Load(), 0; rounds < 2; {
		if now := n.seen.Load(); now != before {
			if before = now; now != nil {
				if _, answers := (*now)[id]; answers {
					rounds++ // the first may have been asked before
				} else {
					rounds = 0
				}
			}
		}
		if _, ok := n.server(id); !ok || !n.isLeader() {
			return
		}
		select {
		case <-n.work.Done():
			return
		case <-tick.C:
		}
	}
}

// settled reports whether this node is a member at the address that the members
// know, under a leader.
func (n *Node) settled() bool {
	s, ok := n.server(n.id)
	return ok && string(s.Address) == n.cfg.advertised() && n.leader().ID != ""
}

// settle does one step towards being a settled member and returns what is waited
// for, "" for a member that no other refuses. The pledge before is this node's when the peers were asked.
func (n *Node) settle(ctx context.Context, before *pledge, peers []hello) (waiting string, err error) {
	rec := n.identity.get()
	clusters := map[string]bool{}
	for _, h := range peers {
		if h.ClusterID != "" {
			clusters[h.ClusterID] = true
		}
	}
	switch {
	case rec.ClusterID == "" && len(clusters) == 0:
		return n.found(ctx, before, peers)
	case rec.ClusterID == "" && len(clusters) > 1:
		return fmt.Sprintf("%d different clusters named %s are reachable; this node joins none of them", len(clusters), n.cfg.Cluster), nil
	}
	waiting, err = n.join(ctx, rec, peers)
	if s, member := n.server(n.id); member && string(s.Address) == n.cfg.advertised() {
		waiting = ""
		if n.leader().ID == "" {
			waiting = n.refused
		}
	}
	return waiting, err
}

// join asks the leader that the peers name to be a member, which is also how a
// member learns that it was removed and tells that its address has changed.
func (n *Node) join(ctx context.Context, rec record, peers []hello) (waiting string, err error) {
	if n.isLeader() {
		return n.moveSelf(ctx), nil
	}
	leader := entry{}
	clusterID := rec.ClusterID
	for _, h := range peers {
		if h.ClusterID == "" || rec.ClusterID != "" && h.ClusterID != rec.ClusterID || h.Leader == nil {
			continue
		}
		if leader.ID == "" || h.Leader.ID == h.ID {
			leader, clusterID = *h.Leader, h.ClusterID
		}
	}
	if leader.ID == "" {
		return fmt.Sprintf("no reachable member of cluster %s knows a leader", n.cfg.Cluster), nil
	}
	if leader.ID == n.id {
		return "", nil
	}
	n.asking.Store(&clusterID)
	defer n.asking.Store(nil)
	answer, err := n.askToJoin(ctx, leader)
	switch {
	case errors.Is(err, ErrRemoved):
		return "", n.markRemoved()
	case errors.Is(err, ErrCopied):
		_, saveErr := n.identity.update(func(r *record) error { r.Copied = true; return nil })
		return "", errors.Join(fmt.Errorf("cluster %s: %w", n.cfg.Cluster, err), saveErr)
	case err != nil:
		return fmt.Sprintf("asked %s to join: %v", cmp.Or(leader.Name, leader.Address), err), nil
	}
	if answer == "" && !rec.Member {
		if _, err := n.identity.update(func(r *record) error { r.Member = true; return nil }); err != nil {
			return "", err
		}
	}
	return answer, nil
}

// moveSelf notes the new address of this node, which leads. It returns what is
// waited for.
func (n *Node) moveSelf(ctx context.Context) (waiting string) {
	ctx, cancel := context.WithTimeout(ctx, n.opTime())
	defer cancel()
	_, err := inLead(ctx, n, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, n.change(ctx, func(r *raft.Raft) raft.IndexFuture {
			return r.AddVoter(raft.ServerID(n.id), raft.ServerAddress(n.cfg.advertised()), 0, opTimeout)
		})
	})
	if err != nil {
		return fmt.Sprintf("note this node's new address %s: %v", n.cfg.advertised(), err)
	}
	return ""
}

// markMember notes for ever that this node has been a member. A voter in an
// uncommitted configuration is one too: a founding configuration is never taken
// back, and nobody becomes a voter before a committed configuration has named it.
func (n *Node) markMember() error {
	if n.identity.get().Member {
		return nil
	}
	if s, ok := n.server(n.id); !ok || s.Suffrage != raft.Voter {
		return nil
	}
	_, err := n.identity.update(func(r *record) error { r.Member = true; return nil })
	return err
}

// wasMember reports whether this node is or was a member.
func (n *Node) wasMember() bool {
	s, ok := n.server(n.id)
	return n.identity.get().Member || ok && s.Suffrage == raft.Voter
}

func (n *Node) markRemoved() error {
	if _, err := n.identity.update(func(r *record) error { r.Removed = true; return nil }); err != nil {
		return err
	}
	return fmt.Errorf("cluster %s: %w; delete the data directory %s to join anew", n.cfg.Cluster, ErrRemoved, n.cfg.DataDir)
}

// checkIn makes this node ask the leader soon whether it is still a member.
func (n *Node) checkIn() {
	n.forced.Store(true)
	ping(n.pingPeers)
}

// saveBook learns from the answers of members and forgets everybody else.
func (n *Node) saveBook(answers map[string]hello) {
	members := map[string]bool{}
	for _, s := range n.servers() {
		members[string(s.ID)] = true
	}
	for id, h := range answers {
		if members[id] {
			n.book.learn(h.entry)
			n.book.hearsay(h.Members)
		}
	}
	if len(members) > 0 {
		n.book.keep(members)
	}
}

func (n *Node) probeTimeout() time.Duration { return max(time.Second, n.cfg.Profile.Transport) }

// ping wakes the reader of a channel of size one.
func ping(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
