package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of the cluster port. A member uses about ten connections to each other.
const (
	maxConns         = 512 // accepted and open, all peers
	maxConnsPerIP    = 64
	maxConnsMember   = 384             // of a member's address: each client of its API may wait for us
	handshakeTimeout = 3 * time.Second // TLS and preface, both ends
	maxComplaints    = 128             // refusals that are remembered, to log each once
)

// A port accepts connections on the cluster port, checks their preface and hands
// each to the part that serves its type of stream.
type port struct {
	address netip.Addr
	tls     *tls.Config // nil: plain TCP
	log     *slog.Logger
	// judge returns why a caller is refused, or "".
	judge func(preface) string
	// known tells the addresses of members; they are admitted over maxConns.
	known func(netip.Addr) bool
	// serve gets each admitted connection and must return when it is closed.
	serve func(net.Conn, preface)
	id    string

	mu         sync.Mutex
	listener   net.Listener
	conns      map[net.Conn]netip.Addr // accepted
	perIP      map[netip.Addr]int      // of them
	dialed     map[*dialedConn]bool
	closed     bool
	complaints map[string]bool     // peers and reasons that were logged
	strangers  map[string]stranger // by address; at most maxStrangers
}

// listen binds the port.
func (p *port) listen(advertised string) error {
	l, err := net.Listen("tcp", advertised)
	if err != nil {
		return fmt.Errorf("cluster port: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l.Close()
		return net.ErrClosed
	}
	p.listener = l
	return nil
}

// run accepts until ctx ends; then it closes the listener and every connection
// and returns when all of them are done.
func (p *port) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, p.close)()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.close()
	for {
		conn, err := p.listener.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil: // out of file descriptors, or a peer that is gone already
			p.log.Warn("cluster port: a connection could not be accepted", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if !p.admit(conn) {
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer p.forget(conn)
			p.handle(ctx, conn)
		})
	}
}

// admit counts conn against the limits.
func (p *port) admit(conn net.Conn) bool {
	ip := remoteIP(conn)
	known := p.known(ip)
	p.mu.Lock()
	defer p.mu.Unlock()
	most := maxConnsPerIP
	if known {
		most = maxConnsMember
	}
	if p.closed || p.perIP[ip] >= most || len(p.conns) >= maxConns && !known {
		return false
	}
	p.conns[conn] = ip
	p.perIP[ip]++
	return true
}

func (p *port) forget(conn net.Conn) {
	conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	ip := p.conns[conn]
	delete(p.conns, conn)
	if p.perIP[ip]--; p.perIP[ip] <= 0 {
		delete(p.perIP, ip)
	}
}

// close ends every connection, also those that raft or a request still uses, and lets
// none begin. It waits for nobody.
func (p *port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.listener != nil {
		p.listener.Close()
	}
	for conn := range p.conns {
		conn.Close()
	}
	for conn := range p.dialed {
		conn.Conn.Close()
	}
}

// A dialedConn is an outgoing connection that the port knows of.
type dialedConn struct {
	net.Conn
	port *port
}

// keep has the port know of conn, which it closes when it is closed itself.
func (p *port) keep(conn net.Conn) (*dialedConn, error) {
	c := &dialedConn{Conn: conn, port: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	p.dialed[c] = true
	return c, nil
}

// Close implements net.Conn.
func (c *dialedConn) Close() error {
	c.port.mu.Lock()
	delete(c.port.dialed, c)
	c.port.mu.Unlock()
	return c.Conn.Close()
}

// NetConn returns the connection beneath.
func (c *dialedConn) NetConn() net.Conn { return c.Conn }

// handle does the handshake of an accepted connection and serves it.
func (p *port) handle(ctx context.Context, raw net.Conn) {
	conn := raw
	conn.SetDeadline(time.Now().Add(handshakeTimeout))
	if p.tls != nil {
		secure := tls.Server(raw, p.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			p.refuseHandshake(raw, err)
			return
		}
		conn = tlsConn{secure}
	}
	var from preface
	if err := readPreface(conn, &from); errors.Is(err, errTLS) && p.tls == nil {
		p.keepOut(remoteIP(raw).String(), hasASecret)
		farewell(raw, alertNoSecret)
		return
	} else if err != nil {
		p.complain(remoteIP(raw).String(), "preface: "+plain(err))
		return
	}
	answer := prefaceAnswer{ID: p.id, Refused: p.judge(from)}
	if err := writePreface(conn, answer); err != nil {
		return
	}
	if answer.Refused != "" {
		p.complain(from.Address, answer.Refused)
		return
	}
	conn.SetDeadline(time.Time{})
	p.serve(conn, from)
}

// refuseHandshake tells a caller whose TLS handshake failed why, as far as TLS has not.
func (p *port) refuseHandshake(raw net.Conn, err error) {
	reason, stranger := handshakeReason(err)
	if !stranger {
		p.complain(remoteIP(raw).String(), reason)
		return
	}
	p.keepOut(remoteIP(raw).String(), reason)
	if reason == hasNoSecret {
		var message bytes.Buffer
		if writePreface(&message, prefaceAnswer{Refused: hasASecret}) == nil {
			farewell(raw, message.Bytes())
		}
	}
}

// dial connects to the node with that id ("" takes whoever is there) at address.
// An error that matches ErrRefused is that node's answer.
func (p *port) dial(ctx context.Context, address string, self preface) (_ net.Conn, id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: p.address.AsSlice(), Zone: p.address.Zone()}}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, "", err
	}
	kept, err := p.keep(raw)
	if err != nil {
		return nil, "", err
	}
	conn := net.Conn(kept)
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if p.tls != nil {
		secure := tls.Client(conn, p.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, "", p.handshakeError(address, err)
		}
		conn = tlsConn{secure}
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	var answer prefaceAnswer
	if err := writePreface(conn, self); err != nil {
		return nil, "", fmt.Errorf("preface to %s: %w", address, err)
	}
	if err := readPreface(conn, &answer); err != nil {
		if _, stranger := handshakeReason(err); stranger { // who is called judges after the handshake
			return nil, "", p.handshakeError(address, err)
		}
		return nil, "", fmt.Errorf("preface of %s: %w", address, err)
	}
	if answer.Refused == hasASecret && p.tls == nil {
		p.keepOut(remoteIP(conn).String(), hasASecret)
		return nil, "", fmt.Errorf("%s: %s", address, hasASecret)
	}
	if answer.Refused != "" {
		p.complain(address, "refused by the peer: "+answer.Refused)
		return nil, answer.ID, fmt.Errorf("%s: %w: %s", address, ErrRefused, answer.Refused)
	}
	if self.To != "" && answer.ID != self.To {
		return nil, answer.ID, fmt.Errorf("%s: %w: it is node %s, not %s", address, ErrRefused, answer.ID, self.To)
	}
	return conn, answer.ID, nil
}

// handshakeError is why the handshake with the node at address failed.
func (p *port) handshakeError(address string, err error) error {
	reason, stranger := handshakeReason(err)
	if !stranger {
		return fmt.Errorf("TLS handshake with %s: %w", address, err)
	}
	if host, _, splitErr := net.SplitHostPort(address); splitErr == nil {
		p.keepOut(host, reason)
	}
	return fmt.Errorf("%s: %s", address, reason)
}

// complain logs why a peer is refused, once a reason.
func (p *port) complain(peer, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := peer + " " + reason
	if p.complaints[key] {
		return
	}
	if len(p.complaints) >= maxComplaints {
		clear(p.complaints)
	}
	p.complaints[key] = true
	p.log.Warn("cluster port: connection refused", "peer", peer, "reason", reason)
}

// plain returns err's words without the port numbers of one connection.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// remoteIP is the peer's IP address, or the zero Addr.
func remoteIP(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
