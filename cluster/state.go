package cluster

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// A State is what this node knows of the cluster now.
type State struct {
	ClusterID  string        // "" before the cluster is founded or joined
	Leader     string        // the leader's id; "" unknown
	LeaderName string        // "" unknown
	IsLeader   bool          // this node leads, as far as it knows, in Term
	Holds      bool          // it does not, but keeps the lease without a quorum; see Config.Hold
	Passes     bool          // it does not, but serves until the leader that it chose asks for the lease
	Stands     bool          // it stands for election, and would have the lease at once, as far as a majority of the voters knows
	Term       uint64        // raft's
	Raft       string        // "leader", "follower", "candidate", "non-voter", or "stopped"
	LeaderAge  time.Duration // since this node heard its leader; 0 on the leader, negative: not since it started
	Joined     bool          // this node is in the configuration it knows
	Members    []Member      // by name
	Waiting    string        // why this node is no member yet, or no more to the others; "" when it is
	KeptOut    []string      // who does not share the secret and tried in the last minute, with what is wrong
}

// A Member is a node of the cluster, or one that waits to become one.
type Member struct {
	ID      string
	Name    string // its id when it has never answered
	Address string // ip:port of its cluster port
	Voter   bool
	Witness bool
	Leader  bool
	Local   bool // this node
	// Reachable says that it answered this node's last hello, at most about two
	// seconds ago.
	Reachable bool
	Waiting   string // why it is not a member; "" when it is
	// OtherTimings says how its timings differ from this node's, "" when they do not or
	// are not known. All members need the same.
	OtherTimings string
}

// State returns what this node knows now. It does not block on the network.
func (n *Node) State() State {
	state := State{ClusterID: n.identity.get().ClusterID, Raft: "stopped", LeaderAge: -1, KeptOut: n.port.keptOut()}
	if waiting := n.waiting.Load(); waiting != nil {
		state.Waiting = *waiting
	}
	r := n.raft.Load()
	if r == nil {
		return state
	}
	is := r.State() // before leading: a candidate that wins in between is a leader then, not neither
	leader := n.leader()
	state.Leader, state.LeaderName = leader.ID, cmp.Or(leader.Name, leader.ID)
	state.Term, state.IsLeader = n.leading()
	if !state.IsLeader {
		state.Holds, state.Passes = n.holds(), n.passes()
		state.Stands = is == raft.Candidate && n.cfg.Now() < time.Duration(n.stands.Load())
	}
	state.Raft = strings.ToLower(is.String())
	if state.Raft == "shutdown" {
		state.Raft = "stopped"
	}
	state.LeaderAge = 0
	if !state.IsLeader {
		state.LeaderAge = -1
		if heard := r.LastContact(); !heard.IsZero() {
			state.LeaderAge = time.Since(heard)
		}
	}
	seen := n.answered()
	waiters := n.listWaiters()
	if h, ok := seen[leader.ID]; ok {
		waiters = append(waiters, h.Waiters...)
	}
	for _, s := range n.servers() {
		e := n.member(s)
		h, reachable := seen[e.ID]
		m := Member{
			ID: e.ID, Name: cmp.Or(e.Name, e.ID), Address: e.Address,
			Voter: s.Suffrage == raft.Voter, Witness: e.Witness,
			Leader: e.ID == leader.ID, Local: e.ID == n.id,
			Reachable: reachable || e.ID == n.id,
		}
		if reachable && !m.Local {
			m.OtherTimings = n.cfg.Profile.Differs(h.Timing)
		}
		if m.Local {
			state.Joined = true
			if !m.Voter && state.Raft == "follower" {
				state.Raft = "non-voter"
			}
		}
		state.Members = append(state.Members, m)
	}
	for _, w := range waiters {
		if !slices.ContainsFunc(state.Members, func(m Member) bool { return m.ID == w.ID }) {
			state.Members = append(state.Members, Member{
				ID: w.ID, Name: w.Name, Address: w.Address, Witness: w.Witness, Local: w.ID == n.id, Waiting: w.Reason,
			})
		}
	}
	slices.SortFunc(state.Members, func(a, b Member) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return state
}

// answered returns who answered the last round of hellos, by id.
func (n *Node) answered() map[string]hello {
	if seen := n.seen.Load(); seen != nil {
		return *seen
	}
	return nil
}

// leading returns raft's term and whether this node leads in it.
func (n *Node) leading() (term uint64, ok bool) {
	r := n.raft.Load()
	if r == nil {
		return 0, false
	}
	// Raft has no call that reads both at once; equal terms around the state count.
	term = r.CurrentTerm()
	ok = r.State() == raft.Leader
	return term, ok && r.CurrentTerm() == term
}

func (n *Node) isLeader() bool {
	_, ok := n.leading()
	return ok
}

// leader returns the leader as far as this node knows; its id is "" when it knows
// none.
func (n *Node) leader() entry {
	r := n.raft.Load()
	if r == nil {
		return entry{}
	}
	_, id := r.LeaderWithID()
	if id == "" {
		return entry{}
	}
	s, ok := n.server(string(id))
	if !ok {
		return n.book.get(string(id))
	}
	return n.member(s)
}

// servers returns the newest configuration that this node knows, committed or not.
func (n *Node) servers() []raft.Server {
	r := n.raft.Load()
	if r == nil {
		return nil
	}
	future := r.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

// otherVoters returns the voters but this node, and whether this node is one too.
func (n *Node) otherVoters() (others []raft.Server, votes bool) {
	for _, s := range n.servers() {
		switch {
		case s.Suffrage != raft.Voter:
		case string(s.ID) == n.id:
			votes = true
		default:
			others = append(others, s)
		}
	}
	return others, votes
}

func (n *Node) server(id string) (raft.Server, bool) {
	for _, s := range n.servers() {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// nameOf returns the name of the node with that id, or the id.
func (n *Node) nameOf(id string) string {
	if s, ok := n.server(id); ok {
		return cmp.Or(n.member(s).Name, id)
	}
	return cmp.Or(n.book.get(id).Name, id)
}

// member returns what is known of a server, at its newest known address.
func (n *Node) member(s raft.Server) entry {
	if string(s.ID) == n.id {
		return n.self()
	}
	e := n.book.get(string(s.ID))
	if h, ok := n.answered()[e.ID]; ok && e.Name == "" {
		e = h.entry
	}
	e.Address = cmp.Or(e.Address, string(s.Address))
	return e
}
