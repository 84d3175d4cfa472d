package cluster

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestSpareStreams: raft gets connections that are open already, as long as they are
// good, and to peers that answer.
func TestSpareStreams(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dials := 0
	s := newStreams("127.0.0.1:1", func(context.Context, string, string) (net.Conn, error) {
		dials++
		return net.Dial("tcp", listener.Addr().String())
	})
	defer s.Close()
	peers := []target{{"a", "127.0.0.1:2"}}
	accept := func() net.Conn {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	s.keep(t.Context(), peers)
	s.keep(t.Context(), peers)
	first, second := accept(), accept()
	defer second.Close()
	expect := func(what string, want int) {
		t.Helper()
		if dials != want {
			t.Errorf("%s: %d dials, want %d", what, dials, want)
		}
	}
	expect("kept", spareStreams)

	take := func() {
		t.Helper()
		conn, err := s.Dial(raft.ServerAddress("a@127.0.0.1:2"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	take()
	expect("taken", spareStreams)
	first.Close()
	for alive(s.spares["a@127.0.0.1:2"][0]) { // its end arrives in a moment
		time.Sleep(time.Millisecond)
	}
	take()
	expect("dead", spareStreams+1)
	accept().Close()

	s.keep(t.Context(), peers)
	expect("kept again", 2*spareStreams+1)
	s.keep(t.Context(), nil)
	if len(s.spares) != 0 {
		t.Errorf("spares to a peer that does not answer: %v", s.spares)
	}
}
