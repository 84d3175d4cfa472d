package cluster

import (
	"net"
	"sync"
	"time"
)

// slowestRate is how many bytes a second a link, and the disk behind it, must take
// at least.
const slowestRate = 1 << 20

// mostPatience bounds what large messages add to a deadline.
const mostPatience = time.Minute

// A patientConn gives a large message more time. Raft sets one deadline for every
// message, as short as its timers; a batch that cannot be carried and stored so
// quickly would be sent again for ever, and nothing behind it would ever arrive.
type patientConn struct {
	net.Conn

	mu    sync.Mutex
	until time.Time     // what has been written may take so long
	read  time.Duration // allowed beyond until; 0 = no deadline
	write time.Duration
}

// NetConn returns the connection beneath.
func (c *patientConn) NetConn() net.Conn { return c.Conn }

// Write extends the deadlines by what p may take.
func (c *patientConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	now := time.Now()
	if c.until.Before(now) {
		c.until = now
	}
	c.until = c.until.Add(time.Duration(len(p)) * time.Second / slowestRate)
	if most := now.Add(mostPatience); c.until.After(most) {
		c.until = most
	}
	if c.read != 0 {
		_ = c.Conn.SetReadDeadline(c.until.Add(c.read)) // a dead connection says so below
	}
	if c.write != 0 {
		_ = c.Conn.SetWriteDeadline(c.until.Add(c.write))
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// SetDeadline implements net.Conn. Raft sets both deadlines before it writes a
// message whose answer it then waits for: nothing is under way.
func (c *patientConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.until = time.Time{}
	c.mu.Unlock()
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *patientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, t = c.extended(t)
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *patientConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write, t = c.extended(t)
	return c.Conn.SetWriteDeadline(t)
}

// extended returns how much t allows from now, and t after what is under way.
func (c *patientConn) extended(t time.Time) (allowed time.Duration, at time.Time) {
	if t.IsZero() {
		return 0, t
	}
	allowed = time.Until(t)
	if c.until.After(time.Now()) {
		t = c.until.Add(allowed)
	}
	return allowed, t
}
