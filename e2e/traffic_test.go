package e2e_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pingInterval = 100 * time.Millisecond // of a held connection
	restInterval = time.Second            // of one that rests
	deadAfter    = 10 * time.Second       // without an echo
	attemptTime  = 250 * time.Millisecond // in which a newcomer is served, or is not
)

// serve answers what comes to TCP port 80 of a host with the same.
func (l *lab) serve(ns string) {
	l.t.Helper()
	var listener net.Listener
	err := inNamespace(ns, func() (err error) {
		listener, err = net.Listen("tcp", ":80")
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
			}()
		}
	}()
}

// connect starts a TCP connection from a host.
func connect(ns string, to netip.AddrPort) (conn *os.File, err error) {
	err = inNamespace(ns, func() (err error) {
		conn, err = dial(to)
		return err
	})
	return conn, err
}

// dial starts a TCP connection from the network namespace of this thread. Reads and
// writes wait until it is there, and fail when it is refused.
func dial(to netip.AddrPort) (*os.File, error) {
	family := unix.AF_INET
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port())}
	if to.Addr().Is4() {
		address.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	} else {
		family = unix.AF_INET6
		address = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket for %s: %w", to, err)
	}
	// A client that goes leaves nothing behind: its ports would run out.
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		if err = unix.Connect(fd, address); errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	return os.NewFile(uintptr(fd), to.String()), nil
}

// ping sends a number and wants it back.
func ping(conn *os.File, number uint64, within time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	var sent, got [8]byte
	binary.BigEndian.PutUint64(sent[:], number)
	if _, err := conn.Write(sent[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return err
	}
	if got != sent {
		return fmt.Errorf("sent % x, got % x", sent, got)
	}
	return nil
}

// A connection is one that a client holds.
type connection struct {
	to     netip.AddrPort
	conn   *os.File
	rests  *atomic.Bool
	from   string    // address and port, known with the first echo
	opened time.Time // when the client asked for it

	mu   sync.Mutex
	echo time.Time // the last; zero: none yet
	err  error     // why it is dead
}

// run pings until the connection is dead or closed.
func (c *connection) run() {
	defer c.conn.Close()
	for number := uint64(0); ; number++ {
		sent := time.Now()
		err := ping(c.conn, number, deadAfter)
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			return
		}
		c.echo = time.Now()
		if number == 0 {
			c.from = localAddress(c.conn)
		}
		c.mu.Unlock()
		next := sent.Add(pingInterval)
		if c.rests.Load() {
			next = sent.Add(restInterval)
		}
		time.Sleep(time.Until(next))
	}
}

// localAddress is the address and port of this end.
func localAddress(conn *os.File) (local string) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	_ = raw.Control(func(fd uintptr) {
		switch a, _ := unix.Getsockname(int(fd)); a := a.(type) {
		case *unix.SockaddrInet4:
			local = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
		case *unix.SockaddrInet6:
			local = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
		}
	})
	return local
}

func (c *connection) state() (echo time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.echo, c.err
}

// held are connections that a client holds: count for good, and a stream of others that
// live a few seconds, so that some are young at any time.
type held struct {
	lab   *lab
	ns    string
	to    []netip.AddrPort
	count int
	next  int // of to

	// Before an event, those that a kernel knows wrongly for longer than stale give way
	// to others: after two owners had a part of each, that can last as long as they do.
	replace  bool
	replaced int

	rests atomic.Bool // they send seldom: nobody looks at them
	pause chan bool
	stop  chan struct{}
	done  sync.WaitGroup

	mu    sync.Mutex
	conns []*connection // the oldest first
}

const (
	// mature is the age from which a connection must survive a move: a master sends
	// what it has noted of one up to 3 s later.
	mature      = 3 * time.Second
	stale       = 10 * time.Second
	streamEvery = mature / 30
	streamed    = 40 // more than are young at a time
)

// hold holds connections from a host, to each service in turn.
func (l *lab) hold(ns string, count int, to ...netip.AddrPort) *held {
	l.t.Helper()
	h := &held{lab: l, ns: ns, to: to, count: count, pause: make(chan bool), stop: make(chan struct{})}
	h.done.Go(h.stream)
	l.t.Cleanup(func() {
		close(h.stop)
		h.done.Wait()
		for _, c := range h.conns {
			_ = c.conn.Close()
		}
	})
	h.awaitMature()
	return h
}

// stream replaces what is dead and keeps the stream going, but for the time in which
// it is told to pause.
func (h *held) stream() {
	tick := time.NewTicker(streamEvery)
	defer tick.Stop()
	for {
		select {
		case <-h.stop:
			return
		case pause := <-h.pause:
			for pause {
				select {
				case <-h.stop:
					return
				case pause = <-h.pause:
				}
			}
		case <-tick.C:
			h.renew()
		}
	}
}

func (h *held) renew() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(c *connection) bool {
		_, err := c.state()
		return err != nil
	})
	for range 1 + min(20, max(0, h.count-len(h.conns))) {
		c := &connection{to: h.to[h.next%len(h.to)], rests: &h.rests, opened: time.Now()}
		h.next++
		var err error
		if c.conn, err = connect(h.ns, c.to); err != nil {
			continue // nobody owns the VIP now
		}
		h.conns = append(h.conns, c)
		go c.run()
	}
	if len(h.conns) > h.count+streamed {
		_ = h.conns[h.count].conn.Close()
		h.conns = slices.Delete(h.conns, h.count, h.count+1)
	}
}

// awaitMature waits until as many are alive and mature as are to be held, and every
// director's kernel knows them.
func (h *held) awaitMature() {
	h.lab.t.Helper()
	began := time.Now()
	h.lab.await("held connections that every kernel knows", func() error {
		var alive []*connection // two to different services may have the same port here
		h.mu.Lock()
		for _, c := range h.conns[:min(h.count, len(h.conns))] { // the others come and go
			if echo, err := c.state(); err == nil && !echo.IsZero() && time.Since(c.opened) > mature {
				alive = append(alive, c)
			}
		}
		h.mu.Unlock()
		if len(alive) < h.count {
			return fmt.Errorf("%d are alive", len(alive))
		}
		var strange error
		for _, n := range h.lab.nodes {
			states := map[string]string{}
			for line := range strings.Lines(n.ipvsadm("-Lnc")) {
				if f := strings.Fields(line); len(f) > 3 {
					states[f[3]] = f[2]
				}
			}
			alive = slices.DeleteFunc(alive, func(c *connection) (replaced bool) {
				if states[c.from] == "ESTABLISHED" {
					return false
				}
				strange = fmt.Errorf("%s knows the one from %s as %q", n.name, c.from, states[c.from])
				if replaced = h.replace && time.Since(began) > stale; replaced {
					_ = c.conn.Close()
					h.replaced++
				}
				return replaced
			})
		}
		return strange
	})
}

// A survey tells how many connections have survived.
type survey struct {
	old, oldAlive     int
	young, youngAlive int      // younger than mature
	deaths            []string // of the old ones
}

func (s *survey) add(o survey) {
	s.old, s.oldAlive = s.old+o.old, s.oldAlive+o.oldAlive
	s.young, s.youngAlive = s.young+o.young, s.youngAlive+o.youngAlive
	s.deaths = append(s.deaths, o.deaths...)
}

func (s survey) String() string {
	return fmt.Sprintf("%d of %d alive, and %d of %d younger than %v", s.oldAlive, s.old, s.youngAlive, s.young, mature)
}

// survey waits until each connection has had an echo after a time, or is dead. Ages
// are those at struck. The stream must pause since then.
func (h *held) survey(struck, after time.Time) survey {
	h.lab.t.Helper()
	var s survey
	h.lab.await("fate of each held connection", func() error {
		s = survey{}
		for _, c := range h.conns {
			echo, err := c.state()
			alive := 0
			switch {
			case err == nil && echo.Before(after):
				return fmt.Errorf("%s: last echo %v ago", c.to, time.Since(echo))
			case err == nil:
				alive = 1
			}
			age := struck.Sub(c.opened)
			if age < mature {
				s.young, s.youngAlive = s.young+1, s.youngAlive+alive
				continue
			}
			s.old, s.oldAlive = s.old+1, s.oldAlive+alive
			if err != nil {
				s.deaths = append(s.deaths, fmt.Sprintf("%s, %v old: %v", c.to, age.Round(time.Millisecond), err))
			}
		}
		return nil
	})
	return s
}
