package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// A pledge is the promise of a node that has no cluster to be part of the cluster
// that one other node, the founder, is about to found, and of no other. The
// founder's own pledge to itself is its proposal.
//
// A cluster is founded by the write of the founder's record that sets its cluster
// id, under the pledges of Expect nodes including itself. Two foundings would need
// two such sets; with fewer than 2 x Expect nodes the sets share a node, and a
// node has one pledge. A pledge is on disk before it is told.
//
// A pledge may be taken back only when the proposal can never be founded: its
// founder itself says, from disk and asked after the pledge was given, that it has
// no cluster and no longer proposes this one. Cluster ids are random and never used
// again, so "no longer" is for ever.
type pledge struct {
	Founder   string `json:"founder"` // its id
	Address   string `json:"address"` // of the founder, to ask it
	ClusterID string `json:"cluster_id"`
}

// A pledgeRequest asks a node for its pledge.
type pledgeRequest struct {
	pledge
	Expect int `json:"expect"`
}

// giveTo pledges r to p, or says why it cannot.
func (r *record) giveTo(p pledge) error {
	switch {
	case r.ClusterID != "":
		return fmt.Errorf("%w: this node has a cluster", ErrRefused)
	case r.Pledge == nil, r.Pledge.ClusterID == p.ClusterID:
	case r.Pledge.Founder == r.ID && p.Founder < r.ID:
		// Its own proposal gives way to one of a lower id. That is the withdrawal
		// that those who are pledged to this node can see.
	default:
		return fmt.Errorf("%w: this node is pledged to node %s at %s", ErrRefused, r.Pledge.Founder, r.Pledge.Address)
	}
	r.Pledge = &p
	return nil
}

// withdrawn reports whether the proposal p will never be founded, as its founder h
// says.
func (p pledge) withdrawn(h hello) bool {
	return h.ID == p.Founder && h.ClusterID != p.ClusterID && (h.Pledge == nil || h.Pledge.ClusterID != p.ClusterID)
}

// proposes reports whether h asks others for their pledge.
func (h hello) proposes() bool {
	return h.ClusterID == "" && h.Pledge != nil && h.Pledge.Founder == h.ID
}

// answerPledge answers a founder.
func (n *Node) answerPledge(body []byte) error {
	var request pledgeRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return err
	}
	if n.cfg.Expect != request.Expect {
		return fmt.Errorf("%w: this node expects %d voters, the founder %d", ErrRefused, n.cfg.Expect, request.Expect)
	}
	if n.seenState.Load() != stateNone {
		return fmt.Errorf("%w: a peer may have a cluster already", ErrRefused)
	}
	_, err := n.identity.update(func(r *record) error { return r.giveTo(request.pledge) })
	if err != nil {
		return err
	}
	return n.crash("pledged")
}

// choose returns the first configuration: want of the nodes, the founder among
// them, then directors before witnesses, then by id. It fails when two of them have
// one name or one address, or when all are witnesses.
func choose(nodes []entry, founder string, want int) ([]entry, error) {
	rank := func(e entry) int {
		switch {
		case e.ID == founder:
			return 0
		case !e.Witness:
			return 1
		}
		return 2
	}
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b entry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID))
	})[:want]
	if !slices.ContainsFunc(nodes, func(e entry) bool { return !e.Witness }) {
		return nil, errors.New("all nodes are witnesses; one must be a director")
	}
	for i, a := range nodes {
		for _, b := range nodes[:i] {
			switch {
			case a.Name == b.Name:
				return nil, fmt.Errorf("two nodes are named %s: %s and %s", a.Name, a.Address, b.Address)
			case a.Address == b.Address:
				return nil, fmt.Errorf("%s and %s have one address: %s", a.Name, b.Name, a.Address)
			}
		}
	}
	return nodes, nil
}
