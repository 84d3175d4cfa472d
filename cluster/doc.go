// Package cluster answers three questions for one node: who is in the cluster, who
// leads it, and how do bytes get there. It founds a cluster exactly once, admits
// and removes nodes, replicates opaque commands through raft, and carries requests
// between the agents of its members.
//
// It does not know what a command means (that is the raft.FSM's business), it
// touches no kernel, and gossip is only a hint to it: gossip finds addresses,
// never adds, removes or judges a member.
//
// # Ports
//
// One TCP port carries raft and requests, in mutual TLS when the nodes share a
// secret. Every connection begins with a preface that names the cluster, its id and
// both ends; a mismatch is refused before anything else is decoded. The gossip port
// (UDP and TCP) is optional.
//
// # Data directory
//
// The directory holds the node's random id, its pledge or its cluster's id, what
// it knows about other members, and raft's log and snapshots. Its life is the
// node's identity: an emptied directory is a new node, and a directory must never
// be copied.
package cluster
