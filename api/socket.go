package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	maxConnections = 256
	socketMode     = 0o660
)

// listen makes the socket at path. The socket is made in a directory of its own and
// moved into place when its group and mode are right, so that it is never open to
// others, not even for a moment. What a killed agent left is replaced.
func listen(path string, log *slog.Logger) (net.Listener, error) {
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	if err := checkFree(path); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(parent, ".api-")
	if err != nil {
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	defer os.RemoveAll(private)
	dir, err := os.Open(private)
	if err != nil {
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	defer dir.Close()
	made := filepath.Join(private, "s")
	// By the descriptor, since the kernel takes only 107 bytes and path may use them.
	short := fmt.Sprintf("/proc/self/fd/%d/s", dir.Fd())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := setAccess(made, log); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := os.Rename(made, path); err != nil {
		return nil, errors.Join(fmt.Errorf("put the socket in place: %w", err), l.Close())
	}
	return &socket{UnixListener: l, path: path, slots: make(chan struct{}, maxConnections), closed: make(chan struct{})}, nil
}

// checkFree reports that path is no socket, or one that somebody listens on.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is no socket", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s: another agent listens there: %w", path, unix.EADDRINUSE)
	}
	return nil
}

func setAccess(path string, log *slog.Logger) error {
	if group, err := user.LookupGroup(Group); err == nil {
		gid, err := strconv.Atoi(group.Gid)
		if err == nil {
			err = os.Chown(path, -1, gid)
		}
		if err != nil {
			log.Warn("the socket stays with the agent's own group", "group", Group, "error", err)
		}
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return fmt.Errorf("mode of the socket: %w", err)
	}
	return nil
}

// socket is a unix listener with a limited number of connections, which removes its
// file at the end.
type socket struct {
	*net.UnixListener
	path   string
	slots  chan struct{} // one element for each open connection
	closed chan struct{}
	once   sync.Once
}

// Accept waits for a free slot first; clients beyond the limit wait in the kernel's
// queue.
func (s *socket) Accept() (net.Conn, error) {
	select {
	case s.slots <- struct{}{}:
	case <-s.closed:
		return nil, net.ErrClosed
	}
	conn, err := s.AcceptUnix()
	if err != nil {
		<-s.slots
		return nil, err
	}
	return &connection{UnixConn: conn, release: func() { <-s.slots }}, nil
}

// Close removes the file, then stops listening.
func (s *socket) Close() (err error) {
	s.once.Do(func() {
		close(s.closed)
		err = errors.Join(os.Remove(s.path), s.UnixListener.Close())
	})
	return err
}

type connection struct {
	*net.UnixConn
	once    sync.Once
	release func()
}

func (c *connection) Close() error {
	err := c.UnixConn.Close()
	c.once.Do(c.release)
	return err
}

type peerKey struct{}

// withPeer notes whose process is at the other end of a connection (SO_PEERCRED).
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	c, ok := conn.(*connection)
	if !ok {
		return ctx
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || credErr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred.Uid)
}

// caller names who made a request. Only root, who could be anybody, may say that it
// asks for somebody else.
func caller(ctx context.Context, told string) string {
	uid, known := ctx.Value(peerKey{}).(uint32)
	if !known {
		return told
	}
	id := strconv.FormatUint(uint64(uid), 10)
	name := "uid " + id
	if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	if uid != 0 || told == "" || told == name {
		return name
	}
	return told + " as " + name
}
