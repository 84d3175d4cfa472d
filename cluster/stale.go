package cluster

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// Raft keeps connections for its next messages, for as long as a peer's process may take
// to end and begin anew. A message on one that has ended meanwhile is lost, and when it
// asks for a vote, so is the election, and a second with raft's own timers. So each of
// its connections is looked at before a message, and another one taken.

// errStale says that the peer has ended a connection while nothing was under way on it.
// Nothing was sent.
var errStale = errors.New("the peer has closed this connection")

// A lookingConn is one of raft's connections. It refuses a message, with errStale, when
// it has carried one before and has ended since. One goroutine writes to it at a time.
type lookingConn struct {
	net.Conn // one that alive can look at
	used     bool
	begins   bool // what is written next begins a message
}

// SetDeadline implements net.Conn. Raft sets both deadlines before each message.
func (c *lookingConn) SetDeadline(t time.Time) error {
	c.begins = true
	return c.Conn.SetDeadline(t)
}

// Write implements net.Conn.
func (c *lookingConn) Write(p []byte) (int, error) {
	if c.begins && c.used && !alive(c.Conn) {
		return 0, errStale
	}
	c.begins, c.used = false, true
	return c.Conn.Write(p)
}

// fresh calls call, which sends one message and drops a connection that fails, until the
// connection that it takes has not ended before.
func fresh(call func() error) error {
	for {
		if err := call(); !errors.Is(err, errStale) {
			return err
		}
	}
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return fresh(func() error { return t.NetworkTransport.RequestVote(id, target, args, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return fresh(func() error { return t.NetworkTransport.RequestPreVote(id, target, args, resp) })
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return fresh(func() error { return t.NetworkTransport.TimeoutNow(id, target, args, resp) })
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return fresh(func() error { return t.NetworkTransport.InstallSnapshot(id, target, args, resp, data) })
}
