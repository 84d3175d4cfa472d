package kernel

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

const (
	// datagram is the size of the receive buffer. The kernel makes the parts of a
	// dump as long as the largest buffer it has seen on the socket, up to this; the
	// usual 4 KiB make dumps of large tables five times slower.
	datagram = 32 << 10

	// What the socket holds in the kernel, in bytes: requests of one batch, and a
	// refusal of each of them, with room for what else the kernel counts. The
	// defaults are the administrator's, and may be too small.
	sendBuffer    = 256 << 10
	receiveBuffer = 512 << 10
)

// socket is what a link needs of a generic netlink socket. It is for one goroutine,
// but for SetReadDeadline.
type socket interface {
	// GetFamily returns the family of a name.
	GetFamily(name string) (genetlink.Family, error)
	// Send has the kernel carry out the requests in b, in order; their answers wait
	// in the socket when it returns.
	Send(b []byte) error
	// Poll reads a datagram into b. The error is syscall.EAGAIN when there is none.
	Poll(b []byte) (int, error)
	// Receive is Poll, but waits until the read deadline.
	Receive(b []byte) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// conn is a socket of the kernel's. Its requests and answers do not go through
// genetlink.Conn: that knows one request at a time, and allocates for each message.
type conn struct {
	*genetlink.Conn
	raw syscall.RawConn

	// Arguments and results of the functions below, which are made once: the
	// runtime would otherwise allocate all of them for every call.
	buffer      []byte
	n           int
	err         error
	read, write func(fd uintptr) bool
	poll        func(fd uintptr)
}

func newConn(c *genetlink.Conn) (*conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &conn{Conn: c, raw: raw}
	// With CAP_NET_ADMIN, which IPVS demands anyway, the limits of the host do not
	// count. Refusals do not repeat the request.
	for _, err := range []error{
		c.SetReadBuffer(receiveBuffer), c.SetWriteBuffer(sendBuffer), c.SetOption(netlink.CapAcknowledge, true),
	} {
		if err != nil {
			return nil, err
		}
	}
	s.write = func(fd uintptr) bool {
		s.n, s.err = syscall.Write(int(fd), s.buffer)
		return s.err != syscall.EAGAIN
	}
	s.read = func(fd uintptr) bool {
		s.poll(fd)
		return s.err != syscall.EAGAIN
	}
	s.poll = func(fd uintptr) {
		for {
			if s.n, s.err = syscall.Read(int(fd), s.buffer); s.err != syscall.EINTR {
				return
			}
		}
	}
	return s, nil
}

func (s *conn) Send(b []byte) error {
	s.buffer = b
	return s.result("sendmsg", s.raw.Write(s.write))
}

func (s *conn) Poll(b []byte) (int, error) {
	s.buffer = b
	err := s.result("recvmsg", s.raw.Control(s.poll))
	return s.n, err
}

func (s *conn) Receive(b []byte) (int, error) {
	s.buffer = b
	err := s.result("recvmsg", s.raw.Read(s.read))
	return s.n, err
}

// result returns the error of a system call; waiting is that of the wait for it.
func (s *conn) result(call string, waiting error) error {
	s.buffer = nil
	if waiting != nil {
		return waiting
	}
	if s.err != nil {
		return os.NewSyscallError(call, s.err)
	}
	return nil
}

// opener returns a function that opens sockets in the network namespace of the
// calling thread, whichever thread calls it, and one that ends its use.
func opener() (open func() (socket, error), release func() error, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, nil, fmt.Errorf("open the network namespace: %w", err)
	}
	open = func() (socket, error) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		config := &netlink.Config{MessageBufferSize: datagram}
		if !current(home) { // entering it would need CAP_SYS_ADMIN
			config.NetNS = int(home.Fd())
		}
		c, err := genetlink.Dial(config)
		if err != nil {
			return nil, fmt.Errorf("open a generic netlink socket: %w", err)
		}
		s, err := newConn(c)
		if err != nil {
			_ = c.Close() // the first error counts
			return nil, fmt.Errorf("prepare a generic netlink socket: %w", err)
		}
		return s, nil
	}
	return open, home.Close, nil
}

// current reports whether home is the calling thread's network namespace.
func current(home *os.File) bool {
	here, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return false
	}
	there, err := home.Stat()
	return err == nil && os.SameFile(here, there)
}
