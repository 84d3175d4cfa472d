// Package fsm gives committed log entries their meaning: it is the replicated
// state machine of ipvs-ha.
//
// The state is one immutable value, State. A log entry holds one Command; applying
// it is a pure function of the state and the entry's bytes, without clock, I/O,
// random source or map order, so that every replica has the same state at the same
// log index. Machine is the thin layer that hashicorp/raft calls.
//
// Entries and snapshots carry a format version. A node answers an entry of a
// version that it does not know with a rejection; a cluster must therefore write a
// new version only when each of its nodes knows it.
package fsm
