package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// found does one step towards founding the cluster, given what all reachable peers
// say, none of which has a cluster, and the pledge that this node had before they
// were asked. It returns what this node waits for.
//
// The node with the lowest id proposes, unless another does already; of two
// proposals the higher id's gives way. Each step reads the record and the answers
// anew, so a crash between any two of them costs only time.
func (n *Node) found(ctx context.Context, before *pledge, peers []hello) (waiting string, err error) {
	rec := n.identity.get()
	if rec.Pledge != nil && rec.Pledge.Founder != n.id {
		if before == nil || *before != *rec.Pledge {
			// What the founder said may be older than the pledge, and so may its not
			// proposing yet; it must not be taken for a withdrawal.
			return "pledged to found the cluster with node " + rec.Pledge.Founder, nil
		}
		if waiting := n.awaitFounder(*rec.Pledge, peers); waiting != "" {
			return waiting, nil
		}
		rec = n.identity.get()
	}
	if n.cfg.Expect == 0 {
		if rec.Pledge != nil { // its own proposal, of a former configuration
			if err := n.takeBack(*rec.Pledge); err != nil {
				return "", err
			}
		}
		return "no cluster answers at the join addresses, and this node founds none (expect: 0)", nil
	}
	others, odd := n.fellows(peers)
	if odd != "" {
		return odd, nil
	}
	proposer := slices.IndexFunc(others, hello.proposes)
	switch {
	case rec.Pledge != nil: // this node proposes
		if proposer >= 0 && others[proposer].ID < n.id {
			return n.withdraw(*rec.Pledge, others[proposer])
		}
	case proposer >= 0:
		return "waiting for " + others[proposer].Name + " to found the cluster", nil
	}
	if len(others)+1 < n.cfg.Expect {
		return fmt.Sprintf("%d of %d nodes to found the cluster with are reachable: %s",
			len(others)+1, n.cfg.Expect, strings.Join(append(names(others), n.cfg.Node), ", ")), nil
	}
	if rec.Pledge == nil {
		if len(others) > 0 && others[0].ID < n.id {
			return "waiting for " + others[0].Name + " to found the cluster", nil
		}
		if rec, err = n.proposeFounding(); err != nil {
			return "", err
		}
		if rec.Pledge.Founder != n.id {
			return "waiting for another node to found the cluster", nil
		}
	}
	return n.collect(ctx, *rec.Pledge, others)
}

// awaitFounder returns what the founder of p is waited for, or "" once the pledge
// is taken back because the proposal was withdrawn.
func (n *Node) awaitFounder(p pledge, peers []hello) string {
	i := slices.IndexFunc(peers, func(h hello) bool { return h.ID == p.Founder })
	if i < 0 {
		return fmt.Sprintf("pledged to found the cluster with node %s at %s, which does not answer; "+
			"if it is lost for good and no cluster exists, delete this node's data directory", p.Founder, p.Address)
	}
	if !p.withdrawn(peers[i]) {
		return "waiting for " + peers[i].Name + " to found the cluster"
	}
	if err := n.takeBack(p); err != nil {
		return err.Error()
	}
	return ""
}

// withdraw ends this node's own proposal in favour of a lower id's.
func (n *Node) withdraw(p pledge, other hello) (string, error) {
	return "waiting for " + other.Name + " to found the cluster", n.takeBack(p)
}

func (n *Node) takeBack(p pledge) error {
	_, err := n.identity.update(func(r *record) error {
		if r.ClusterID == "" && r.Pledge != nil && r.Pledge.ClusterID == p.ClusterID {
			r.Pledge = nil
		}
		return nil
	})
	return err
}

// fellows returns the peers that found clusters, by id, or what is odd about them.
func (n *Node) fellows(peers []hello) (others []hello, odd string) {
	for _, h := range peers {
		switch {
		case h.Expect == 0:
		case h.Expect != n.cfg.Expect:
			return nil, fmt.Sprintf("%s expects %d voters to found the cluster, this node %d; make them equal", h.Name, h.Expect, n.cfg.Expect)
		default:
			others = append(others, h)
		}
	}
	slices.SortFunc(others, func(a, b hello) int { return strings.Compare(a.ID, b.ID) })
	return others, ""
}

// proposeFounding makes this node a founder, unless it has been pledged to another
// meanwhile.
func (n *Node) proposeFounding() (record, error) {
	rec, err := n.identity.update(func(r *record) error {
		if r.Pledge == nil {
			r.Pledge = &pledge{Founder: n.id, Address: n.cfg.advertised(), ClusterID: randomID()}
		}
		return nil
	})
	if err != nil {
		return rec, err
	}
	return rec, n.crash("proposed")
}

// collect asks everybody for their pledge to p, and founds the cluster when enough
// have given it in this very round.
func (n *Node) collect(ctx context.Context, p pledge, others []hello) (waiting string, err error) {
	body, err := json.Marshal(pledgeRequest{pledge: p, Expect: n.cfg.Expect})
	if err != nil {
		return "", err
	}
	refusals := make([]error, len(others))
	var wg sync.WaitGroup
	for i, h := range others {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, n.probeTimeout())
			defer cancel()
			_, refusals[i] = n.requests.do(ctx, h.ID, h.Address, requestHead{Method: methodPledge}, body)
		})
	}
	wg.Wait()
	pledged := []entry{n.self()}
	var reasons []string
	for i, h := range others {
		if refusals[i] == nil {
			pledged = append(pledged, h.entry)
		} else {
			reasons = append(reasons, h.Name+": "+refusals[i].Error())
		}
	}
	if len(pledged) < n.cfg.Expect {
		return fmt.Sprintf("%d of %d nodes are pledged to found the cluster; %s", len(pledged), n.cfg.Expect, strings.Join(reasons, "; ")), nil
	}
	servers, err := choose(pledged, n.id, n.cfg.Expect)
	if err != nil {
		return "the cluster cannot be founded: " + err.Error(), nil
	}
	// This write is the founding. A proposal that gave way meanwhile is not founded.
	rec, err := n.identity.update(func(r *record) error {
		if r.ClusterID != "" || r.Pledge == nil || *r.Pledge != p {
			return errAgain
		}
		r.ClusterID, r.Servers = p.ClusterID, servers
		return nil
	})
	switch {
	case errors.Is(err, errAgain):
		return "waiting for another node to found the cluster", nil
	case err != nil:
		return "", err
	}
	if err := n.crash("founded"); err != nil {
		return "", err
	}
	n.log.Info("cluster founded", "cluster", n.cfg.Cluster, "id", rec.ClusterID, "voters", len(servers))
	return "", n.bootstrap(rec)
}

// bootstrap gives raft the first configuration, if this node founded the cluster
// and raft does not have it yet.
func (n *Node) bootstrap(rec record) error {
	r := n.raft.Load()
	if len(rec.Servers) == 0 || r.LastIndex() > 0 {
		return nil
	}
	var configuration raft.Configuration
	for _, s := range rec.Servers {
		configuration.Servers = append(configuration.Servers, raft.Server{
			ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address),
		})
		n.book.learn(s)
	}
	if err := r.BootstrapCluster(configuration).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("found the cluster: %w", err)
	}
	return n.crash("bootstrapped")
}

func names(list []hello) []string {
	var names []string
	for _, h := range list {
		names = append(names, h.Name)
	}
	return names
}
