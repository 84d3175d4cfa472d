package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

const (
	maxWaiters   = 64               // nodes that want in but may not yet
	waiterExpiry = 10 * time.Second // one that no longer asks is forgotten
	maxRemoved   = 256              // ids that this node has removed, remembered while it runs
	caughtUpGap  = 64               // log entries a node may lack to become a voter
	askTimeout   = 500 * time.Millisecond
)

// A joinRequest asks the leader to make a node a member, to note its new address,
// or to say that it was removed.
type joinRequest struct {
	entry
	Member bool `json:"member"` // it has been a member already
}

// A joinAnswer says what the node still waits for; "" when it is a member.
type joinAnswer struct {
	Waiting string `json:"waiting,omitempty"`
}

// A waiter is a node that wants in and why it is not.
type waiter struct {
	entry
	Reason string    `json:"reason"`
	at     time.Time // when it last asked
}

// askToJoin sends this node's request to the leader. An error that matches
// ErrRemoved is the leader's verdict.
func (n *Node) askToJoin(ctx context.Context, leader entry) (waiting string, err error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	body, err := json.Marshal(joinRequest{entry: n.self(), Member: n.wasMember()})
	if err != nil {
		return "", err
	}
	data, err := n.requests.do(ctx, leader.ID, leader.Address, requestHead{Method: methodJoin}, body)
	if err != nil {
		return "", err
	}
	var answer joinAnswer
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", fmt.Errorf("answer to join: %w", err)
	}
	return answer.Waiting, nil
}

// answerJoin serves methodJoin.
func (n *Node) answerJoin(ctx context.Context, body []byte) ([]byte, error) {
	var request joinRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	return inLead(ctx, n, func(ctx context.Context) ([]byte, error) {
		// A verdict needs the newest committed configuration.
		if _, err := n.readIndexHere(ctx); err != nil {
			return nil, err
		}
		reason, err := n.admit(ctx, request)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			n.wait(waiter{request.entry, reason, time.Now()})
		} else {
			n.forgetWaiter(request.ID)
		}
		return json.Marshal(joinAnswer{Waiting: reason})
	})
}

// admit makes the node a member, as a non-voter, if it may be one. It returns why
// it may not be one yet.
func (n *Node) admit(ctx context.Context, request joinRequest) (reason string, err error) {
	if s, ok := n.server(request.ID); ok {
		if string(s.Address) == request.Address {
			if request.Member {
				return "", nil
			}
			return "", n.commitAll(ctx) // it will remember the answer for ever
		}
		return n.move(ctx, s, request.entry)
	}
	// A node that was removed soon after it came may not have noted that it was a
	// member.
	if request.Member || slices.Contains(n.removed, request.ID) {
		// For ever, too: a removal that is not committed may never be.
		if err := n.commitAll(ctx); err != nil {
			return "", err
		}
		if _, ok := n.server(request.ID); ok {
			return "", errAgain
		}
		return "", fmt.Errorf("node %s (%s): %w", request.ID, request.Name, ErrRemoved)
	}
	for _, s := range n.servers() {
		other := n.member(s)
		sameName, sameAddress := other.Name == request.Name, other.Address == request.Address
		switch {
		case sameAddress && (sameName || other.Name == ""): // "": it was lost before it could be asked
			return n.succeed(ctx, s, request.entry)
		case sameAddress:
			return fmt.Sprintf("%s is the address of member %s; if that node is gone for good, run members remove %s", other.Address, other.Name, other.Name), nil
		case sameName && n.answers(ctx, other):
			return fmt.Sprintf("the name %s belongs to the node at %s, which is alive; choose another name", other.Name, other.Address), nil
		case sameName:
			return fmt.Sprintf("the name %s belongs to the member at %s, which does not answer; if that node is gone for good, run members replace %s", other.Name, other.Address, other.Name), nil
		}
	}
	return n.add(ctx, request.entry)
}

// add makes a new node a non-voter, once it has confirmed that it wants in.
func (n *Node) add(ctx context.Context, e entry) (reason string, err error) {
	if reason := n.welcome(ctx, e); reason != "" {
		return reason, nil
	}
	if err := n.change(ctx, func(r *raft.Raft) raft.IndexFuture {
		return r.AddNonvoter(raft.ServerID(e.ID), raft.ServerAddress(e.Address), 0, opTimeout)
	}); err != nil {
		return "", fmt.Errorf("add %s: %w", e.Name, err)
	}
	n.book.learn(e)
	n.log.Info("node joined as non-voter", "node", e.Name, "id", e.ID, "address", e.Address)
	return "", nil
}

// succeed replaces a member whose data directory was emptied: the node at its
// address has its name, another id, and has never been a member.
func (n *Node) succeed(ctx context.Context, old raft.Server, e entry) (reason string, err error) {
	if reason := n.welcome(ctx, e); reason != "" {
		return reason, nil
	}
	n.log.Warn("the data directory of a member was emptied; its old identity is removed",
		"node", e.Name, "address", e.Address, "old", old.ID, "new", e.ID)
	if err := n.removeServer(ctx, old.ID); err != nil {
		return "", fmt.Errorf("replace %s: %w", e.Name, err)
	}
	return n.add(ctx, e)
}

// move notes a member's new address, unless the old one still answers for it: then
// two processes run with copies of one data directory.
func (n *Node) move(ctx context.Context, s raft.Server, e entry) (reason string, err error) {
	first, cancel := context.WithTimeout(ctx, n.probeTimeout())
	defer cancel()
	if _, err := n.askHello(first, e.ID, string(s.Address)); err == nil {
		n.log.Error("two nodes run with copies of one data directory; the second one is told to stop", "node", e.Name, "id", e.ID, "first", s.Address, "second", e.Address)
		return "", fmt.Errorf("%w: node %s answers at %s already, so that the one at %s stops; delete the copy", ErrCopied, e.ID, s.Address, e.Address)
	}
	if !n.answers(ctx, e) {
		return fmt.Sprintf("the leader cannot reach this node at its new address %s", e.Address), nil
	}
	if err := n.change(ctx, func(r *raft.Raft) raft.IndexFuture {
		if s.Suffrage == raft.Voter {
			return r.AddVoter(s.ID, raft.ServerAddress(e.Address), 0, opTimeout)
		}
		return r.AddNonvoter(s.ID, raft.ServerAddress(e.Address), 0, opTimeout)
	}); err != nil {
		return "", fmt.Errorf("move %s: %w", e.Name, err)
	}
	n.book.learn(e)
	n.log.Info("member moved", "node", e.Name, "id", e.ID, "old", s.Address, "new", e.Address)
	return "", nil
}

// answers reports whether the node with that id answers at that address.
func (n *Node) answers(ctx context.Context, e entry) bool {
	if e.ID == n.id {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	h, err := n.askHello(ctx, e.ID, e.Address)
	return err == nil && h.ID == e.ID
}

// welcome asks the node at e.Address to confirm that it is e, has never been a
// member of a cluster, and wants into this one. From then on it lets this
// cluster's members replicate to it.
func (n *Node) welcome(ctx context.Context, e entry) (reason string) {
	ctx, cancel := context.WithTimeout(ctx, n.probeTimeout())
	defer cancel()
	clusterID := n.identity.get().ClusterID
	h, err := n.askHelloBy(ctx, methodWelcome, e.ID, e.Address, []byte(clusterID))
	switch {
	case err != nil:
		return fmt.Sprintf("the leader cannot reach this node at %s: %v", e.Address, err)
	case h.Name != e.Name || h.Member || h.ClusterID != clusterID:
		return fmt.Sprintf("the node at %s is not the one that asks", e.Address)
	}
	return ""
}

// answerWelcome serves methodWelcome.
func (n *Node) answerWelcome(clusterID string) ([]byte, error) {
	if asking := n.asking.Load(); asking == nil || *asking != clusterID {
		return nil, fmt.Errorf("%w: this node has not asked to join", ErrRefused)
	}
	_, err := n.identity.update(func(r *record) error {
		if r.ClusterID != "" && r.ClusterID != clusterID {
			return fmt.Errorf("%w: this node has another cluster", ErrRefused)
		}
		r.ClusterID = clusterID
		return nil
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(n.hello())
}

// wait notes a node that wants in.
func (n *Node) wait(w waiter) {
	n.waitersMu.Lock()
	defer n.waitersMu.Unlock()
	maps.DeleteFunc(n.waiters, func(_ string, w waiter) bool { return time.Since(w.at) > waiterExpiry })
	if _, known := n.waiters[w.ID]; !known {
		n.log.Warn("a node waits to join", "node", w.Name, "id", w.ID, "address", w.Address, "reason", w.Reason)
		if len(n.waiters) >= maxWaiters {
			return
		}
	}
	n.waiters[w.ID] = w
}

func (n *Node) forgetWaiter(id string) {
	n.waitersMu.Lock()
	defer n.waitersMu.Unlock()
	delete(n.waiters, id)
}

// waiting nodes, by name; empty unless this node leads.
func (n *Node) listWaiters() []waiter {
	n.waitersMu.Lock()
	defer n.waitersMu.Unlock()
	var list []waiter
	for _, w := range n.waiters {
		if time.Since(w.at) <= waiterExpiry && n.isLeader() {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b waiter) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	return list
}
