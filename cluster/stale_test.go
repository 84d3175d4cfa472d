package cluster

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestRaftTakesNoDeadConnection: a follower that led before, or stood for election, has
// connections to a peer that has been restarted since. Its next vote request must not be
// lost on one of them: the election would be, and packets for seconds.
func TestRaftTakesNoDeadConnection(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	_, followers := leaderOf(nodes...)
	from, to := followers[0], followers[1]
	id, address := raft.ServerID(to.id), raft.ServerAddress(to.id+"@"+to.cfg.advertised())
	header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte(from.id), Addr: []byte(from.cfg.advertised())}
	for name, send := range map[string]func() error{ // of a term that is over
		"vote": func() error {
			return from.transport.RequestVote(id, address, &raft.RequestVoteRequest{RPCHeader: header}, &raft.RequestVoteResponse{})
		},
		"pre-vote": func() error {
			return from.transport.RequestPreVote(id, address, &raft.RequestPreVoteRequest{RPCHeader: header}, &raft.RequestPreVoteResponse{})
		},
		"heartbeat": func() error {
			return from.transport.AppendEntries(id, address, &raft.AppendEntriesRequest{RPCHeader: header}, &raft.AppendEntriesResponse{})
		},
	} {
		if err := send(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		to.port.mu.Lock()
		for conn := range to.port.conns {
			conn.Close()
		}
		to.port.mu.Unlock()
		if err := send(); err != nil {
			t.Errorf("%s after the peer has closed its connections: %v", name, err)
		}
	}
}

// TestNoMessageOnADeadConnection: it is refused before a byte of it is sent, but for the
// rest of one that has begun, and for the first on a new connection.
func TestNoMessageOnADeadConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := forRaft(raw)
	begin := func() {
		t.Helper()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	write := func(what string, want error) {
		t.Helper()
		if _, err := conn.Write([]byte("x")); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	begin()
	write("the first", nil)
	begin()
	write("the second", nil)
	if err := far.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Read(make([]byte, 1)); err == nil { // its end has arrived
		t.Fatal("no end")
	}
	write("the rest of the second", nil)
	begin()
	write("the third", errStale)
}
