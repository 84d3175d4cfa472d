package cluster

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A transport is raft's network. It embeds the library's so that pre-vote, the
// heartbeat fast path and Close stay what they are: raft looks for them by type
// assertion, and a wrapper that hides them switches them off without an error.
type transport struct {
	*raft.NetworkTransport
	guarded chan raft.RPC // what runVotes lets pass
	// awaitPeer returns when the peer with that id answers again, or when there is no
	// use in waiting.
	awaitPeer func(id string)
}

// AppendEntries implements raft.Transport. After a failure it returns only when the
// peer answers again: raft itself would sleep for up to ten seconds by then, and a
// node that comes back would lack all changes for so long. Heartbeats do not wait.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	heartbeat := args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
	if err != nil && !heartbeat {
		t.awaitPeer(string(id))
	}
	return err
}

var (
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

// A streams is the raft half of the cluster port. It implements raft.StreamLayer.
type streams struct {
	address string // advertised
	dial    func(ctx context.Context, id, address string) (net.Conn, error)

	accepted chan net.Conn
	once     sync.Once
	done     chan struct{}
}

var _ raft.StreamLayer = (*streams)(nil)

func newStreams(address string, dial func(ctx context.Context, id, address string) (net.Conn, error)) *streams {
	return &streams{address: address, dial: dial, accepted: make(chan net.Conn), done: make(chan struct{})}
}

// serve gives conn to raft and returns when raft has closed it.
func (s *streams) serve(conn net.Conn) {
	watched := &watchedConn{Conn: conn, closed: make(chan struct{})}
	select {
	case s.accepted <- watched:
		<-watched.closed
	case <-s.done:
	}
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *streams) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Addr implements net.Listener: the address that raft advertises.
func (s *streams) Addr() net.Addr { return streamAddr(s.address) }

// Dial implements raft.StreamLayer for the id@ip:port that book.ServerAddr makes.
func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id, host, found := strings.Cut(string(address), "@")
	if !found {
		id, host = "", string(address)
	}
	conn, err := s.dial(ctx, id, host)
	if err != nil {
		return nil, err
	}
	return &patientConn{Conn: conn}, nil
}

type streamAddr string

func (streamAddr) Network() string  { return "tcp" }
func (a streamAddr) String() string { return string(a) }

// A watchedConn tells when it is closed.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *watchedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
