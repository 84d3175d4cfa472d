package kernel

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// datagram is the size of the receive buffer. The kernel makes the parts of a
	// dump as long as the largest buffer it has seen on the socket, up to this; the
	// usual 4 KiB make dumps of large tables five times slower.
	datagram = 32 << 10

	// What the socket holds in the kernel, in bytes: the requests of one batch, and
	// a refusal of each of them, with room for what else the kernel counts. The
	// defaults are the administrator's, and may be too small.
	sendBuffer    = 256 << 10
	receiveBuffer = 512 << 10
)

// socket is what a link needs of a generic netlink socket. It is for one goroutine.
type socket interface {
	// Send has the kernel carry out the requests in b, in order; their answers wait
	// in the socket when it returns.
	Send(b []byte) error
	// Receive reads a datagram into b. When none is there it waits until ctx ends,
	// or at most wait: the error matches os.ErrDeadlineExceeded then.
	Receive(ctx context.Context, b []byte, wait time.Duration) (int, error)
	Close() error
}

// descriptor is a socket of the kernel's that does not block. It is unknown to the
// runtime's poller but while it waits: the kernel answers while it is asked, and to
// wake the poller for each of a million answers that nobody waits for would take as
// long as the answers do.
type descriptor int

func (fd descriptor) Send(b []byte) error {
	for {
		_, err := syscall.Write(int(fd), b)
		if err != syscall.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

func (fd descriptor) Receive(ctx context.Context, b []byte, wait time.Duration) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		switch err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return fd.await(ctx, b, wait)
		default:
			return n, os.NewSyscallError("recvmsg", err)
		}
	}
}

// await reads over a second descriptor, which the poller knows.
func (fd descriptor) await(ctx context.Context, b []byte, wait time.Duration) (int, error) {
	second, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(second), "netlink")
	defer file.Close()
	if err := file.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	return file.Read(b)
}

func (fd descriptor) Close() error { return os.NewSyscallError("close", syscall.Close(int(fd))) }

// namespace opens sockets in a network namespace, whichever thread calls it.
type namespace struct {
	home *os.File
}

// here returns the namespace of the calling thread.
func here() (*namespace, error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	return &namespace{home: home}, nil
}

func (n *namespace) close() error { return n.home.Close() }

// open opens a socket and looks the number of the family up, which also loads the
// module. The error matches syscall.ENOENT when there is no such family. It waits at
// most wait for an answer.
func (n *namespace) open(wait time.Duration) (socket, uint16, error) {
	c, err := n.dial()
	if err != nil {
		return nil, 0, fmt.Errorf("open a generic netlink socket: %w", err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, 0, err
	}
	family, err := c.GetFamily(familyName)
	if err != nil {
		return nil, 0, fmt.Errorf("look up generic netlink family %s: %w", familyName, err)
	}
	fd, err := take(c)
	if err != nil {
		return nil, 0, fmt.Errorf("prepare a generic netlink socket: %w", err)
	}
	return fd, family.ID, nil
}

func (n *namespace) dial() (*genetlink.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	config := &netlink.Config{MessageBufferSize: datagram}
	if !current(n.home) { // entering it would need CAP_SYS_ADMIN
		config.NetNS = int(n.home.Fd())
	}
	return genetlink.Dial(config)
}

// take returns the socket of c, for which it stays open when c is closed.
// genetlink.Conn itself knows one request at a time, and allocates for each message.
func take(c *genetlink.Conn) (descriptor, error) {
	// With CAP_NET_ADMIN, which IPVS demands anyway, the limits of the host do not
	// count. Refusals need not repeat the request.
	for _, err := range []error{
		c.SetReadBuffer(receiveBuffer), c.SetWriteBuffer(sendBuffer), c.SetOption(netlink.CapAcknowledge, true),
	} {
		if err != nil {
			return 0, err
		}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, failed := 0, error(nil)
	if err := raw.Control(func(first uintptr) { fd, failed = unix.FcntlInt(first, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return 0, err
	}
	return descriptor(fd), os.NewSyscallError("fcntl", failed)
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
