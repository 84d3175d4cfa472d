package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
)

// The requests between nodes. The first group is open to every node that knows the
// cluster's name; the rest only to members.
const (
	methodHello   = "hello"   // -> hello
	methodPledge  = "pledge"  // pledgeRequest -> nothing; errors are refusals
	methodJoin    = "join"    // joinRequest -> joinAnswer, by the leader
	methodWelcome = "welcome" // cluster id -> hello, by the node that asked to join
	methodNotice  = "notice"  // you may have been removed: ask

	methodPropose   = "propose"    // command -> index and response, by the leader
	methodLease     = "lease"      // leaseRequest -> report, by a voter; errors are refusals
	methodRelease   = "release"    // the caller gives its lease up
	methodPoll      = "poll"       // pollRequest -> pollAnswer, by a voter
	methodReadIndex = "read-index" // -> index, by the leader
	methodTransfer  = "transfer"   // name or id -> the new leader's id, by the leader
	methodRemove    = "remove"     // name or id, by the leader
	methodReplace   = "replace"    // name or id, by the leader
	methodCall      = "call"       // to the agent's Handler
)

// A hello is what a node says of itself and of the cluster as it knows it.
type hello struct {
	entry
	Expect    int      `json:"expect"`
	ClusterID string   `json:"cluster_id,omitempty"`
	Member    bool     `json:"member,omitempty"`
	Fitness   Fitness  `json:"fitness"`
	LastIndex uint64   `json:"last_index"` // of its log
	Term      uint64   `json:"term"`       // raft's
	Timing    Profile  `json:"timing"`
	Pledge    *pledge  `json:"pledge,omitempty"`
	Leader    *entry   `json:"leader,omitempty"` // nil: it knows none
	Members   []entry  `json:"members,omitempty"`
	Waiters   []waiter `json:"waiters,omitempty"` // of the leader
}

// hello returns what this node says of itself.
func (n *Node) hello() hello {
	rec := n.identity.get()
	h := hello{
		entry:     n.self(),
		Expect:    n.cfg.Expect,
		ClusterID: rec.ClusterID,
		Member:    n.wasMember(),
		Timing:    n.cfg.Profile,
		Pledge:    rec.Pledge,
	}
	r := n.raft.Load()
	if r == nil {
		return h
	}
	h.LastIndex, h.Term, h.Fitness = r.LastIndex(), r.CurrentTerm(), n.fitness()
	if leader := n.leader(); leader.ID != "" {
		h.Leader = &leader
	}
	h.Members = n.book.list()
	h.Waiters = n.listWaiters()
	return h
}

// self is this node's entry.
func (n *Node) self() entry {
	return entry{ID: n.id, Name: n.cfg.Node, Address: n.cfg.advertised(), Witness: n.cfg.Witness}
}

// askHello asks the node at address; "" as id takes whoever is there.
func (n *Node) askHello(ctx context.Context, id, address string) (hello, error) {
	return n.askHelloBy(ctx, methodHello, id, address, nil)
}

func (n *Node) askHelloBy(ctx context.Context, method, id, address string, body []byte) (hello, error) {
	answer, err := n.requests.do(ctx, id, address, requestHead{Method: method}, body)
	if err != nil {
		return hello{}, err
	}
	var h hello
	if err := json.Unmarshal(answer, &h); err != nil {
		return hello{}, fmt.Errorf("hello of %s: %w", address, err)
	}
	h.Fitness = h.Fitness.bounded()
	return h, nil
}

// judge returns why a caller is refused, or "".
func (n *Node) judge(from preface) string {
	rec := n.identity.get()
	switch {
	case from.Cluster != n.cfg.Cluster:
		return fmt.Sprintf("this is cluster %q, not %q", n.cfg.Cluster, from.Cluster)
	case from.To != "" && from.To != n.id:
		return fmt.Sprintf("this is node %s (%s), not %s", n.id, n.cfg.Node, from.To)
	case from.ClusterID != "" && slices.Contains(rec.Former, from.ClusterID):
		return fmt.Sprintf("the cluster was recovered from node %s alone, as %s; delete the caller's data directory and start it to join as a new node", n.cfg.Node, rec.ClusterID)
	case from.ClusterID != "" && rec.ClusterID != "" && from.ClusterID != rec.ClusterID:
		return fmt.Sprintf("another cluster of the same name: %s here, %s there", rec.ClusterID, from.ClusterID)
	}
	switch from.Stream {
	case streamRequest:
		return ""
	case streamRaft:
		if rec.ClusterID == "" {
			return n.adopt(from.ClusterID)
		}
		if from.ClusterID != rec.ClusterID {
			return "a node without a cluster cannot replicate"
		}
		return ""
	}
	return fmt.Sprintf("unknown stream %q; is the peer a newer version?", from.Stream)
}

// adopt makes this node, which has pledged itself to found a cluster, part of it:
// its founder has founded it.
func (n *Node) adopt(clusterID string) string {
	_, err := n.identity.update(func(r *record) error {
		switch {
		case r.ClusterID == clusterID && clusterID != "":
			return nil
		case r.ClusterID != "" || r.Pledge == nil || r.Pledge.ClusterID != clusterID:
			return fmt.Errorf("this node is not part of cluster %q yet", clusterID)
		}
		// Raft speaks to those in the configuration only, and of the pledged these are
		// the founding voters.
		r.ClusterID, r.Member = clusterID, true
		return nil
	})
	if err != nil {
		return err.Error()
	}
	return ""
}

// answer serves one request of a peer.
func (n *Node) answer(ctx context.Context, from preface, head requestHead, body []byte) ([]byte, error) {
	switch head.Method {
	case methodHello:
		return json.Marshal(n.hello())
	case methodPledge:
		return nil, n.answerPledge(body)
	case methodJoin:
		return n.answerJoin(ctx, body)
	case methodWelcome:
		return n.answerWelcome(string(body))
	case methodNotice:
		n.checkIn()
		return nil, nil
	}
	if err := n.mayAsk(from); err != nil {
		return nil, fmt.Errorf("%s: %w", head.Method, err)
	}
	switch head.Method {
	case methodPropose:
		index, response, err := n.proposeHere(ctx, body)
		return appendIndex(index, response), err
	case methodLease:
		return n.answerLease(ctx, from.ID, body)
	case methodRelease:
		return nil, n.answerRelease(from.ID, body)
	case methodPoll:
		return n.answerPoll(from.ID, body)
	case methodReadIndex:
		index, err := n.readIndexHere(ctx)
		return appendIndex(index, nil), err
	case methodTransfer, methodRemove, methodReplace:
		return n.leadHere(ctx, head.Method, string(body))
	case methodCall:
		return n.cfg.Handler(ctx, from.ID, head.Agent, body)
	}
	return nil, fmt.Errorf("%w: unknown request %q; is the peer a newer version?", ErrRefused, head.Method)
}

// mayAsk refuses those who are not members as far as this node knows.
func (n *Node) mayAsk(from preface) error {
	rec := n.identity.get()
	if rec.ClusterID == "" || from.ClusterID != rec.ClusterID {
		return fmt.Errorf("%w: only members may ask", ErrRefused)
	}
	if _, ok := n.server(from.ID); !ok {
		return fmt.Errorf("%w: node %s is not a member", ErrRefused, from.ID)
	}
	return nil
}
