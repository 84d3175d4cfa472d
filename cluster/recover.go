package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

const maxFormer = 16 // ids of clusters that a node remembers to have been recovered from

// A Recovery makes a cluster of one out of what a stopped node of a cluster has that
// has lost its majority for good. It holds the node's data directory until Close.
//
// The new cluster has a new id, so that no member of the old one can take part in it
// or disturb it: each connection names the cluster's id.
type Recovery struct {
	ClusterID string // of the old cluster
	Node      Member // this one
	Members   []Member
	Dead      []Member
	Others    []Member // members that are neither; they can only join anew, emptied
	LastIndex uint64   // of this node's log
	LastTerm  uint64

	node *Node
}

// OpenRecovery looks at the data directory of a node that does not run. dead names,
// by name or id, all members that are lost for good. It changes nothing. Errors match
// ErrNotFound when a name is no member's, and ErrRefused when this node is among the
// dead, when the others still are a majority, or when this node has no cluster.
func OpenRecovery(cfg Config, dead []string) (*Recovery, error) {
	for _, name := range []string{"node.json", "raft.db"} {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, name)); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("recover: %w: data directory %s has no %s, so this node has nothing to recover a cluster from", ErrRefused, cfg.DataDir, name)
		} else if err != nil {
			return nil, fmt.Errorf("recover: %w", err)
		}
	}
	n, err := New(cfg)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	r := &Recovery{ClusterID: n.identity.get().ClusterID, node: n}
	if err = n.openStores(); err == nil {
		err = r.look(dead)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("recover: %w", err), n.Close())
	}
	return r, nil
}

// Close lets go of the data directory.
func (r *Recovery) Close() error { return r.node.Close() }

// look reads the newest configuration, committed or not, which is what raft goes by,
// and finds the dead in it.
func (r *Recovery) look(dead []string) error {
	servers, err := r.read()
	if err != nil {
		return err
	}
	for _, s := range servers {
		e := r.node.member(s)
		r.Members = append(r.Members, Member{
			ID: e.ID, Name: cmp.Or(e.Name, e.ID), Address: e.Address,
			Voter: s.Suffrage == raft.Voter, Witness: e.Witness, Local: e.ID == r.node.id,
		})
	}
	slices.SortFunc(r.Members, func(a, b Member) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID)) })
	i := slices.IndexFunc(r.Members, func(m Member) bool { return m.Local })
	if i < 0 || r.ClusterID == "" {
		return fmt.Errorf("%w: this node is no member of a cluster", ErrRefused)
	}
	r.Node = r.Members[i]
	gone := map[string]bool{}
	for _, who := range dead {
		m, err := r.find(who)
		if err != nil {
			return err
		}
		if m.Local {
			return fmt.Errorf("%w: %s is this node", ErrRefused, who)
		}
		gone[m.ID] = true
	}
	voters, alive := 0, 0
	for _, m := range r.Members {
		switch {
		case gone[m.ID]:
			r.Dead = append(r.Dead, m)
		case !m.Local:
			r.Others = append(r.Others, m)
		}
		if m.Voter {
			voters++
			if !gone[m.ID] {
				alive++
			}
		}
	}
	if alive > voters/2 {
		return fmt.Errorf("%w: %d of %d voters are not said to be dead, and they are a majority: start them, and remove the dead with members remove", ErrRefused, alive, voters)
	}
	return nil
}

// find returns the member with that id, or the only one with that name.
func (r *Recovery) find(who string) (Member, error) {
	var found []Member
	var names []string
	for _, m := range r.Members {
		names = append(names, m.Name)
		if m.ID == who {
			return m, nil
		}
		if m.Name == who {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return Member{}, fmt.Errorf("%w: %q; the members are %s", ErrNotFound, who, strings.Join(names, ", "))
	case 1:
		return found[0], nil
	}
	return Member{}, fmt.Errorf("%w: %d members are called %s; use the id", ErrRefused, len(found), who)
}

// read returns the newest configuration of snapshot and log, and notes their end.
func (r *Recovery) read() (servers []raft.Server, err error) {
	snapshots, err := r.node.snaps.List() // the newest first
	if err != nil {
		return nil, fmt.Errorf("raft snapshots: %w", err)
	}
	if len(snapshots) > 0 {
		s := snapshots[0]
		servers, r.LastIndex, r.LastTerm = s.Configuration.Servers, s.Index, s.Term
	}
	last, err := r.node.store.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("raft log: %w", err)
	}
	for i := r.LastIndex + 1; i <= last; i++ {
		var entry raft.Log
		if err := r.node.store.GetLog(i, &entry); err != nil {
			return nil, fmt.Errorf("raft log, entry %d: %w", i, err)
		}
		if entry.Type == raft.LogConfiguration {
			servers = raft.DecodeConfiguration(entry.Data).Servers
		}
		r.LastIndex, r.LastTerm = entry.Index, entry.Term
	}
	return servers, nil
}

// Run makes this node the only member of a new cluster and returns the new cluster's
// id. What this node has in its log counts as committed; what only others have is
// lost. After a failure or a crash the recovery can be made again.
//
// The lease of an old leader needs no care beyond that of each start: the dead were a
// majority's part, so that nobody has renewed one since they died, and the node votes,
// and takes a lease itself, only after the longest one that it may have granted.
func (r *Recovery) Run() (clusterID string, err error) {
	n := r.node
	// The id comes first. In between, this node has the old configuration under an id
	// that nobody else has, and reaches none of the votes that it would need.
	rec, err := n.identity.update(func(rec *record) error {
		rec.Former = append(slices.Clone(rec.Former), rec.ClusterID)
		rec.Former = rec.Former[max(0, len(rec.Former)-maxFormer):]
		rec.ClusterID, rec.Member, rec.Pledge, rec.Servers = randomID(), true, nil, nil
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("recover: %w", err)
	}
	if err := n.crash("renamed"); err != nil {
		return "", err
	}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(n.cfg.advertised()))
	alone := raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.cfg.advertised()),
	}}}
	log := n.store.BoltStore
	if err := raft.RecoverCluster(n.raftCfg, n.cfg.FSM, log, log, n.snaps, transport, alone); err != nil {
		return "", fmt.Errorf("recover: %w", err)
	}
	return rec.ClusterID, nil
}
