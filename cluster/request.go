package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	requestTime    = time.Minute      // of a request without a deadline
	maxRequestTime = 15 * time.Minute // that a called node works on one
	requestIdle    = 30 * time.Second // an unused connection is closed by the caller
	serverIdle     = 2 * requestIdle  // and, failing that, by the called node
	messageTime    = 10 * time.Second // to read or write one message that has begun
	maxIdlePerPeer = 4
	spareRequests  = 3 // are kept idle for each peer that keep names
)

// A requester sends requests and keeps a few idle connections for the next ones.
type requester struct {
	// dial connects for requests; "" as id takes whoever is at address.
	dial func(ctx context.Context, id, address string) (net.Conn, error)
	// scope is what this node says of itself when it connects; a connection made
	// under another scope is not used again.
	scope func() string

	mu     sync.Mutex
	idle   map[string][]idleConn // by scope/id@address
	closed bool
}

type idleConn struct {
	conn  net.Conn
	since time.Time
}

// do asks the node with that id at address. The error matches errNotSent when the
// request has certainly not reached it, and has the identity of the peer's own
// error when the peer answered with one.
func (r *requester) do(ctx context.Context, id, address string, head requestHead, body []byte) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTime)
		defer cancel()
	}
	if len(body) > maxRequest {
		return nil, fmt.Errorf("%w: body of %d bytes: %w", errNotSent, len(body), ErrTooLarge)
	}
	if address == "" {
		return nil, fmt.Errorf("%w: no address of node %s is known", errNotSent, id)
	}
	key := r.scope() + "/" + id + "@" + address
	conn := r.take(key)
	if conn == nil {
		var err error
		if conn, err = r.dial(ctx, id, address); err != nil {
			return nil, fmt.Errorf("%w: %w", errNotSent, err)
		}
	}
	deadline, _ := ctx.Deadline()
	head.Timeout = time.Until(deadline).Milliseconds()
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	var answer answerHead
	err := writeMessage(conn, head, body, maxRequest)
	if err == nil {
		body, err = readMessage(conn, &answer, maxAnswer)
	}
	if !stop() && err == nil {
		conn.Close() // its deadline may be the past
	} else if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s to %s: %w", head.Method, address, errors.Join(context.Cause(ctx), err))
	} else {
		r.put(key, conn)
	}
	if answer.Code != codeOK {
		return nil, &peerError{code: answer.Code, message: answer.Message}
	}
	return body, nil
}

// take returns an idle connection that is still good, or nil.
func (r *requester) take(key string) net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	for list := r.idle[key]; len(list) > 0; list = r.idle[key] {
		last := list[len(list)-1]
		if len(list) == 1 {
			delete(r.idle, key)
		} else {
			r.idle[key] = list[:len(list)-1]
		}
		if time.Since(last.since) < requestIdle && alive(last.conn) {
			return last.conn
		}
		last.conn.Close()
	}
	return nil
}

func (r *requester) put(key string, conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.idle[key]) >= maxIdlePerPeer {
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	r.idle[key] = append(r.idle[key], idleConn{conn, time.Now()})
}

// keep has a few idle connections to each of these peers.
func (r *requester) keep(ctx context.Context, peers []target) {
	for _, p := range peers {
		key := r.scope() + "/" + p.id + "@" + p.address
		for r.count(key) < spareRequests {
			conn, err := r.dial(ctx, p.id, p.address)
			if err != nil {
				break
			}
			r.put(key, conn)
		}
	}
}

func (r *requester) count(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return spareRequests
	}
	return len(r.idle[key])
}

// prune closes what has been idle too long.
func (r *requester) prune() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, list := range r.idle {
		kept := list[:0]
		for _, c := range list {
			if time.Since(c.since) < requestIdle {
				kept = append(kept, c)
			} else {
				c.conn.Close()
			}
		}
		if r.idle[key] = kept; len(kept) == 0 {
			delete(r.idle, key)
		}
	}
}

func (r *requester) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, list := range r.idle {
		for _, c := range list {
			c.conn.Close()
		}
	}
	clear(r.idle)
}

// alive reports whether an idle connection is still open: nothing may have arrived
// on it, not even its end. Without this look a restarted peer would turn the next
// write's outcome into an unknown one.
func alive(conn net.Conn) bool {
	for outer, ok := conn.(interface{ NetConn() net.Conn }); ok; outer, ok = conn.(interface{ NetConn() net.Conn }) {
		conn = outer.NetConn()
	}
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	empty := false
	err = rc.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		empty = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && empty
}

// serveRequests answers the requests of one connection, one after the other.
func serveRequests(ctx context.Context, conn net.Conn, answer func(context.Context, requestHead, []byte) ([]byte, error)) {
	for {
		var head requestHead
		body, err := readRequest(conn, &head)
		if err != nil {
			return
		}
		timeout := min(max(time.Duration(head.Timeout)*time.Millisecond, 0), maxRequestTime)
		hctx, cancel := context.WithTimeout(ctx, timeout)
		body, err = answer(hctx, head, body)
		cancel()
		result := answerHead{Code: codeOf(err)}
		if err != nil {
			result.Message, body = err.Error(), nil
		}
		if len(result.Message) > maxHead/8 { // JSON may make six bytes of one
			result.Message = result.Message[:maxHead/8]
		}
		if len(body) > maxAnswer {
			result, body = answerHead{Code: codeFailed, Message: fmt.Sprintf("answer of %d bytes is too large", len(body))}, nil
		}
		conn.SetWriteDeadline(time.Now().Add(messageTime))
		if err := writeMessage(conn, result, body, maxAnswer); err != nil {
			return
		}
	}
}

// readRequest waits long for a request to begin, but not for it to end.
func readRequest(conn net.Conn, head *requestHead) ([]byte, error) {
	conn.SetReadDeadline(time.Now().Add(serverIdle))
	first := &firstByte{conn: conn}
	return readMessage(first, head, maxRequest)
}

// A firstByte shortens the connection's read deadline once something has come.
type firstByte struct {
	conn net.Conn
	seen bool
}

func (f *firstByte) Read(p []byte) (int, error) {
	n, err := f.conn.Read(p)
	if n > 0 && !f.seen {
		f.seen = true
		f.conn.SetReadDeadline(time.Now().Add(messageTime))
	}
	return n, err
}
