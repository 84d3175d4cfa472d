package cluster

import (
	"context"
	"net"
	"slices"
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
	herald    herald
}

// AppendEntries implements raft.Transport. After a failure it returns only when the
// peer answers again: raft itself would sleep for up to ten seconds by then, and a
// node that comes back would lack all changes for so long. Heartbeats do not wait.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := fresh(func() error { return t.NetworkTransport.AppendEntries(id, target, args, resp) })
	heartbeat := args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
	switch {
	case err != nil && !heartbeat:
		t.awaitPeer(string(id))
	case err == nil && resp.Success:
		t.herald.took(id, target, args)
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

	mu     sync.Mutex
	spares map[string][]net.Conn // by id@address; nil after Close
}

// spareStreams is how many connections to each peer are kept for raft: a candidate,
// and a new leader after it, must not wait for a handshake.
const spareStreams = 2

var _ raft.StreamLayer = (*streams)(nil)

func newStreams(address string, dial func(ctx context.Context, id, address string) (net.Conn, error)) *streams {
	return &streams{address: address, dial: dial, accepted: make(chan net.Conn), done: make(chan struct{}), spares: map[string][]net.Conn{}}
}

// keep has spares for exactly these peers, which answer now, and closes those that
// are dead. It returns when they are there, or when ctx ends.
func (s *streams) keep(ctx context.Context, peers []target) {
	wanted := map[string]bool{}
	for _, p := range peers {
		wanted[p.id+"@"+p.address] = true
	}
	s.mu.Lock()
	for key, conns := range s.spares {
		conns = slices.DeleteFunc(conns, func(c net.Conn) bool {
			if wanted[key] && alive(c) {
				return false
			}
			c.Close()
			return true
		})
		if s.spares[key] = conns; len(conns) == 0 {
			delete(s.spares, key)
		}
	}
	s.mu.Unlock()
	for _, p := range peers {
		key := p.id + "@" + p.address
		for s.count(key) < spareStreams {
			conn, err := s.dial(ctx, p.id, p.address)
			if err != nil {
				break // the next round tries again
			}
			s.mu.Lock()
			if s.spares == nil {
				conn.Close()
			} else {
				s.spares[key] = append(s.spares[key], conn)
			}
			s.mu.Unlock()
		}
	}
}

func (s *streams) count(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spares == nil {
		return spareStreams
	}
	return len(s.spares[key])
}

// spare returns a connection that was kept, or nil.
func (s *streams) spare(key string) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conns := s.spares[key]; len(conns) > 0; conns = s.spares[key] {
		last := conns[len(conns)-1]
		s.spares[key] = conns[:len(conns)-1]
		if alive(last) {
			return last
		}
		last.Close()
	}
	return nil
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
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conns := range s.spares {
		for _, c := range conns {
			c.Close()
		}
	}
	s.spares = nil
	return nil
}

// Addr implements net.Listener: the address that raft advertises.
func (s *streams) Addr() net.Addr { return streamAddr(s.address) }

// Dial implements raft.StreamLayer for the id@ip:port that book.ServerAddr makes.
func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if conn := s.spare(string(address)); conn != nil {
		return forRaft(conn), nil
	}
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
	return forRaft(conn), nil
}

func forRaft(conn net.Conn) net.Conn { return &lookingConn{Conn: &patientConn{Conn: conn}} }

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
