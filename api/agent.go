package api

import (
	"context"
	"net/netip"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Agent is what the server needs of a node. Its errors are *Problem where their
// kind matters to a client; all others are internal errors.
type Agent interface {
	// Table returns the table: linearizable, or this node's own view at once.
	Table(ctx context.Context, stale bool) (TableView, error)
	// Write commits a change and waits for kernels as it says.
	Write(ctx context.Context, w Write) (WriteResult, error)
	// Status returns what every member says of itself.
	Status(ctx context.Context) (Status, error)
	// Events returns what happened on the nodes, as they remember it.
	Events(ctx context.Context, query EventQuery) (Events, error)
	// Members returns the cluster's members as this node knows them.
	Members(ctx context.Context) ([]Member, error)
	// RemoveMember removes the member with that name or id for good.
	RemoveMember(ctx context.Context, node string) error
	// ReplaceMember lets a waiting node take the place of the dead one of its name.
	ReplaceMember(ctx context.Context, node string) error
	// Configure sets what an operator says of a director, and waits until one that is
	// drained is not the active one.
	Configure(ctx context.Context, node string, s MemberSettings) (MemberConfigured, error)
	// Transfer makes node the leader, or the best director when node is empty.
	Transfer(ctx context.Context, node string) error
	// Reconcile has every reachable director compare and repair its whole kernel.
	Reconcile(ctx context.Context) error
}

// TableView is the table as one node answers it.
type TableView struct {
	Table    ipvs.Table
	Revision uint64        // the raft index of the last change
	Node     string        // who answered
	Stale    bool          // nobody else was asked
	Age      time.Duration // of a stale view: since this node last heard from a leader; negative = never
}

// Wait says which kernels a write waits for.
type Wait string

// What to wait for.
const (
	WaitAll    Wait = "all"    // every reachable director's kernel; the default
	WaitLeader Wait = "leader" // the leader's kernel
	WaitNone   Wait = "none"   // the commit only
)

// Write is one change of the table, all or nothing: either Changes or Replace.
type Write struct {
	ID         string         `json:"id"`           // made by the client; a repeated id is answered from the first
	By         string         `json:"by,omitempty"` // who asked, for people
	IfRevision *uint64        `json:"if_revision,omitempty"`
	Changes    []ipvs.Change  `json:"changes,omitempty"`
	Replace    *ipvs.Document `json:"replace,omitempty"`
	Wait       Wait           `json:"-"` // query parameter
}

// WriteResult says that a write is committed.
type WriteResult struct {
	Revision uint64        `json:"revision"`
	Repeated bool          `json:"repeated,omitempty"` // answered from the first write with this id
	Pending  []PendingNode `json:"pending"`            // kernels waited for that do not hold it yet
	Skipped  []string      `json:"skipped,omitempty"`  // directors that cannot be reached and were not waited for
}

// PendingNode is a director whose kernel does not hold a committed write yet.
type PendingNode struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// The states and roles of a node.
const (
	StateActive      = "active"
	StateStandby     = "standby"
	StateWitness     = "witness"
	StateUnreachable = "unreachable"

	RoleDirector = "director"
	RoleWitness  = "witness"
)

// Status is the state of the whole cluster.
type Status struct {
	Cluster  string       `json:"cluster"`
	Leader   string       `json:"leader"` // empty when there is none
	Revision uint64       `json:"revision"`
	Nodes    []NodeStatus `json:"nodes"`
	Warnings []string     `json:"warnings"`
}

// NodeStatus is the state of one node.
type NodeStatus struct {
	Name            string            `json:"name"`
	Role            string            `json:"role"`
	State           string            `json:"state"`
	Eligible        bool              `json:"eligible"`   // fit to be the active director
	Obstacles       []string          `json:"obstacles"`  // why a director is not
	Drained         bool              `json:"drained"`    // by the operator
	Preference      int               `json:"preference"` // 0 to 100: of directors that are equally fit the higher succeeds; of a witness 0
	Raft            string            `json:"raft"`       // leader, follower, candidate, non-voter or stopped
	Voter           bool              `json:"voter"`
	AppliedRevision uint64            `json:"applied_revision"` // in its kernel; of a witness: in its log
	SyncDaemons     []ipvs.Daemon     `json:"sync_daemons"`
	VIPs            []netip.Addr      `json:"vips"`      // virtual addresses that it has now; the first 1000
	VIPCount        int               `json:"vip_count"` // all of them
	Fence           string            `json:"fence"`     // shut, open, off or unknown; empty: it takes no VIPs
	Foreign         int               `json:"foreign"`   // services in its kernel that are not ours
	ForeignServices []ipvs.ServiceKey `json:"foreign_services"`
	DriftRepaired   uint64            `json:"drift_repaired"` // objects set right since the agent's start
	Errors          []ObjectError     `json:"errors"`
}

// ObjectError says what is not as it should be on a node, and why.
type ObjectError struct {
	Object  string `json:"object,omitempty"`
	Message string `json:"message"`
}

// MemberSettings changes what operators set for a director: what is not nil.
type MemberSettings struct {
	Drained    *bool  `json:"drained,omitempty"`    // not to be the active one while another can
	Preference *int   `json:"preference,omitempty"` // 0 to 100; 50 where nothing was set
	By         string `json:"by,omitempty"`         // who asked, for people
}

// MemberConfigured says that settings are committed.
type MemberConfigured struct {
	StillActive string `json:"still_active,omitempty"` // a drained director is active all the same: why nobody else is
}

// Member is one node of the cluster, or one that waits to join it.
type Member struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Address   string `json:"address"`
	Role      string `json:"role"`
	Voter     bool   `json:"voter"`
	Leader    bool   `json:"leader"`
	Reachable bool   `json:"reachable"`
	Waiting   string `json:"waiting,omitempty"` // what it waits for
}
