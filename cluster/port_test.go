package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// TestIdleConnections holds as many silent connections open as one address may, and
// as many as all together may, while the cluster works on.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, nil)
	leader, followers := leaderOf(nodes...)
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for host := 100; host < 100+maxConns/maxConnsPerIP+1; host++ {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(host))}}
		for range maxConnsPerIP + 5 {
			conn, err := dialer.DialContext(t.Context(), "tcp", leader.cfg.advertised())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
	}
	open := func() (n, most int) {
		leader.port.mu.Lock()
		defer leader.port.mu.Unlock()
		for _, c := range leader.port.perIP {
			most = max(most, c)
		}
		return len(leader.port.conns), most
	}
	eventually(t, "full", func() bool { n, _ := open(); return n >= maxConns })
	if n, most := open(); n > maxConns+20 || most > maxConnsPerIP {
		t.Errorf("%d connections, %d of one address", n, most)
	}
	propose(t, followers[0], "through a follower")
	followers[1].dropIdle()
	propose(t, followers[1], "on a new connection")
	// Who says nothing is shown the door.
	eventually(t, "closed", func() bool { n, _ := open(); return n < maxConnsPerIP })
}

func TestPrefaceIsCheckedFirst(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	node := b.run(b.config(1, 1))
	formed(t, node)
	clusterID := node.identity.get().ClusterID
	good := preface{Cluster: "lb", ClusterID: clusterID, ID: "0123456789abcdef", Address: "127.0.0.9:1", To: node.ID(), Stream: streamRequest}
	tests := []struct {
		name   string
		change func(*preface)
		want   string // the reason, "" when admitted
	}{
		{"good", func(*preface) {}, ""},
		{"no cluster yet", func(p *preface) { p.ClusterID = "" }, ""},
		{"other name", func(p *preface) { p.Cluster = "other" }, `cluster "lb"`},
		{"other id", func(p *preface) { p.ClusterID = "other" }, "another cluster"},
		{"other node", func(p *preface) { p.To = "other" }, "not other"},
		{"unknown stream", func(p *preface) { p.Stream = "telnet" }, "unknown stream"},
		{"raft without a cluster", func(p *preface) { p.ClusterID, p.Stream = "", streamRaft }, "cannot replicate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", node.cfg.advertised())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			p := good
			tt.change(&p)
			var answer prefaceAnswer
			if err := errors.Join(writePreface(conn, p), readPreface(conn, &answer)); err != nil {
				t.Fatal(err)
			}
			if tt.want == "" && answer.Refused != "" || !strings.Contains(answer.Refused, tt.want) {
				t.Errorf("refused %q, want %q", answer.Refused, tt.want)
			}
		})
	}
	for name, garbage := range map[string][]byte{
		"not our protocol": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"too long":         binary.BigEndian.AppendUint16([]byte(magic), maxPreface+1),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", node.cfg.advertised())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(garbage); err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("answered %q", got)
			}
		})
	}
}

// TestStrangersMayNotAsk: knowing the cluster's name is not being a member.
func TestStrangersMayNotAsk(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	node := b.run(b.config(1, 1))
	formed(t, node)
	for _, clusterID := range []string{"", node.identity.get().ClusterID} {
		from := preface{ClusterID: clusterID, ID: "0123456789abcdef"}
		for _, method := range []string{methodPropose, methodReadIndex, methodTransfer, methodRemove, methodReplace, methodCall} {
			if _, err := node.answer(t.Context(), from, requestHead{Method: method}, nil); !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %v, want ErrRefused", method, err)
			}
		}
		if _, err := node.answer(t.Context(), from, requestHead{Method: methodWelcome}, []byte("x")); !errors.Is(err, ErrRefused) {
			t.Errorf("a welcome nobody asked for: %v, want ErrRefused", err)
		}
	}
}

func TestMessageLimits(t *testing.T) {
	for name, message := range map[string][]byte{
		"head": binary.BigEndian.AppendUint32(nil, maxHead+1),
		"body": binary.BigEndian.AppendUint32(append(binary.BigEndian.AppendUint32(nil, 2), "{}"...), maxRequest+1),
	} {
		if _, err := readMessage(bytes.NewReader(message), &requestHead{}, maxRequest); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	var short bytes.Buffer
	if err := writeMessage(&short, requestHead{Method: "x"}, []byte("body"), maxRequest); err != nil {
		t.Fatal(err)
	}
	short.Truncate(short.Len() - 1)
	if _, err := readMessage(&short, &requestHead{}, maxRequest); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut message: %v, want io.ErrUnexpectedEOF", err)
	}
}

func FuzzReadMessage(f *testing.F) {
	var seed bytes.Buffer
	if err := writeMessage(&seed, requestHead{Method: "x"}, []byte("body"), maxRequest); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Add([]byte(magic))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = readMessage(bytes.NewReader(data), &requestHead{}, maxRequest)
		_ = readPreface(bytes.NewReader(data), &preface{})
	})
}

// TestConnectionBreaks: what was sent on a connection that broke has an unknown
// outcome; an idle connection whose peer has gone is not used.
func TestConnectionBreaks(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dials := 0
	r := &requester{
		idle: map[string][]idleConn{}, scope: func() string { return "" },
		dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			dials++
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
	}
	defer r.close()
	ask := func() error {
		_, err := r.do(t.Context(), "id", listener.Addr().String(), requestHead{Method: "x"}, nil)
		return err
	}
	serve := func(requests int, after func(net.Conn)) chan struct{} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			for range requests {
				if _, err := readMessage(conn, &requestHead{}, maxRequest); err != nil {
					return
				}
				if err := writeMessage(conn, answerHead{}, nil, maxAnswer); err != nil {
					return
				}
			}
			after(conn)
		}()
		return done
	}
	closing := func(conn net.Conn) { conn.Close() }
	done := serve(2, closing)
	if err := errors.Join(ask(), ask()); err != nil {
		t.Fatal(err)
	}
	if dials != 1 {
		t.Errorf("%d connections for two requests", dials)
	}
	<-done // the peer has gone
	done = serve(1, closing)
	if err := ask(); err != nil {
		t.Errorf("the request after the peer's restart: %v", err)
	}
	<-done
	done = serve(0, func(conn net.Conn) { readMessage(conn, &requestHead{}, maxRequest); conn.Close() })
	if err := ask(); err == nil || errors.Is(err, errNotSent) {
		t.Errorf("got %v, want an error that leaves the outcome open", err)
	}
	<-done
	listener.Close()
	if err := ask(); !errors.Is(err, errNotSent) {
		t.Errorf("got %v, want errNotSent", err)
	}
}

// TestGossipFindsPeers: only the first node is in anybody's join list.
func TestGossipFindsPeers(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	var nodes []*running
	for i := range 3 {
		cfg := b.config(i+1, 3)
		cfg.GossipPort = b.port + 1
		nodes = append(nodes, b.run(cfg))
	}
	founded(t, nodes)
}

func TestQuietLog(t *testing.T) {
	var out bytes.Buffer
	log := raftLogger(slog.New(slog.NewTextHandler(&out, nil)))
	for range 3 {
		log.Error("failed to heartbeat to", "peer", "a")
	}
	log.Error("failed to heartbeat to", "peer", "b")
	log.Named("x").With("k", "v").Warn("odd")
	log.Info("steady")
	if n := strings.Count(out.String(), "failed to heartbeat"); n != 2 {
		t.Errorf("%d lines for two peers:\n%s", n, out.String())
	}
	for _, want := range []string{"level=WARN", `level=INFO msg="raft: odd"`, "k=v"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "steady") || log.GetLevel() != hclog.Off {
		t.Errorf("steady state is not quiet:\n%s", out.String())
	}
	out.Reset()
	gossip := gossipLog{newQuiet(slog.New(slog.NewTextHandler(&out, nil)))}
	for i := range 3 {
		fmt.Fprintf(gossip, "[WARN] memberlist: Failed to join: %d\n", i)
	}
	fmt.Fprintln(gossip, "[DEBUG] memberlist: detail")
	if got := strings.Count(out.String(), "\n"); got != 1 || !strings.Contains(out.String(), "level=INFO") {
		t.Errorf("want one line at INFO, got:\n%s", out.String())
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := newBed(t, 1).config(1, 1)
	fsm := &list{}
	good.FSM, good.Applied = fsm, fsm.applied
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"name", func(c *Config) { c.Cluster = "" }, "cluster name"},
		{"node", func(c *Config) { c.Node = strings.Repeat("x", 64) }, "node name"},
		{"address", func(c *Config) { c.Address = netip.IPv4Unspecified() }, "unicast"},
		{"port", func(c *Config) { c.Port = 70000 }, "port 70000"},
		{"gossip port", func(c *Config) { c.GossipPort = c.Port }, "gossip port"},
		{"expect", func(c *Config) { c.Expect = 8 }, "expect 8"},
		{"join", func(c *Config) { c.Join = []string{"localhost"} }, `peer "localhost"`},
		{"profile", func(c *Config) { c.Profile.Election = 1 }, "timing election: 1ns: must be at least heartbeat, 200ms"},
		{"machine", func(c *Config) { c.FSM = nil }, "state machine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.change(&c)
			if _, err := New(c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestAcknowledgedWritesSurvive kills the leader again and again in a stream of
// writes: whatever was acknowledged is there in the end, once.
func TestAcknowledgedWritesSurvive(t *testing.T) {
	t.Parallel()
	b, nodes := three(t, nil)
	var (
		wg    sync.WaitGroup
		stop  = make(chan struct{})
		acked = make([][]string, 4)
		count atomic.Int64
	)
	witness := nodes[2] // only the other two are killed
	for w := range acked {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				cmd := fmt.Sprintf("%d/%d", w, i)
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_, _, err := witness.Propose(ctx, []byte(cmd))
				cancel()
				if err == nil {
					acked[w] = append(acked[w], cmd)
					count.Add(1)
				}
			}
		})
	}
	for i := range 4 {
		before := count.Load()
		eventually(t, "writes", func() bool { return count.Load() > before+50 }, nodes...)
		victim := nodes[i%2]
		victim.kill()
		nodes[i%2] = b.run(victim.cfg)
		formed(t, nodes...)
	}
	close(stop)
	wg.Wait()
	all := slices.Concat(acked...)
	for _, r := range nodes {
		for _, cmds := range acked {
			if len(cmds) > 0 {
				eventually(t, "the last write", func() bool { return r.fsm.has(cmds[len(cmds)-1]) })
			}
		}
		count := map[string]int{}
		for _, cmd := range r.fsm.get() {
			count[cmd]++
		}
		for _, cmd := range all {
			if count[cmd] != 1 {
				t.Errorf("%s: acknowledged write %s is there %d times", r.cfg.Node, cmd, count[cmd])
			}
		}
	}
}
