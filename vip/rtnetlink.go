package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	vlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// maxBatch bounds the changes in one system call: the kernel queues an answer for
	// each that fails, and drops what does not fit into the socket's buffer.
	maxBatch = 64
	// dumpTries is how often a dump is begun anew that changes interrupted.
	dumpTries = 5
)

// rtnetlink are the interfaces and addresses of the network namespace it was opened
// in.
type rtnetlink struct {
	handle *vlink.Handle // for reading; for one goroutine
	conn   *netlink.Conn // for writing; nil: to be opened
}

var (
	_ network = (*rtnetlink)(nil)
	_ routes  = (*rtnetlink)(nil)
)

// openNetwork opens the sockets. A goroutine needs its own.
func openNetwork() (*rtnetlink, error) {
	handle, err := vlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	n := &rtnetlink{handle: handle}
	if err = handle.SetSocketTimeout(netlinkTimeout); err == nil {
		err = n.dial()
	}
	if err != nil {
		n.close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return n, nil
}

// dial opens the socket for writing when there is none.
func (n *rtnetlink) dial() error {
	if n.conn != nil {
		return nil
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err == nil {
		n.conn = conn
	}
	return err
}

// drop closes the socket for writing: a late answer must not be taken for that to
// the next request.
func (n *rtnetlink) drop() {
	if n.conn != nil {
		_ = n.conn.Close()
		n.conn = nil
	}
}

func (n *rtnetlink) close() {
	n.handle.Close()
	n.drop()
}

// dump lists something, whole.
func dump[T any](what string, list func() ([]T, error)) ([]T, error) {
	for try := 1; ; try++ {
		all, err := list()
		if err == nil {
			return all, nil
		}
		if try == dumpTries || !errors.Is(err, vlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list the %s: %w", what, err)
		}
	}
}

// Look implements network.
func (n *rtnetlink) Look() (host, error) {
	h := host{links: map[string]link{}}
	links, err := dump("network interfaces", n.handle.LinkList)
	if err != nil {
		return host{}, err
	}
	for _, l := range links {
		a := l.Attrs()
		h.links[a.Name] = link{
			Name: a.Name, Index: a.Index, MAC: a.HardwareAddr,
			Up:      a.RawFlags&unix.IFF_UP != 0,
			Carrier: a.RawFlags&unix.IFF_RUNNING != 0,
			Quiet:   a.RawFlags&(unix.IFF_LOOPBACK|unix.IFF_NOARP|unix.IFF_POINTOPOINT) != 0 || len(a.HardwareAddr) != 6,
		}
	}
	addresses, err := dump("addresses", func() ([]vlink.Addr, error) { return n.handle.AddrList(nil, vlink.FAMILY_ALL) })
	if err != nil {
		return host{}, err
	}
	for _, a := range addresses {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ones, _ := a.Mask.Size()
		if addr.Is4In6() { // the library may hold four bytes in sixteen
			addr = addr.Unmap()
		}
		valid := time.Duration(a.ValidLft) * time.Second
		if uint32(a.ValidLft) == infinite { // 0 is the last second
			valid = forever
		}
		h.addresses = append(h.addresses, hostAddress{Prefix: netip.PrefixFrom(addr, ones), Index: a.LinkIndex, Valid: valid})
	}
	return h, nil
}

// infinite is the kernel's lifetime without end.
const infinite = 1<<32 - 1

// Apply implements network. Changes go out in batches: the kernel does each in the
// order they have.
func (n *rtnetlink) Apply(changes []change) []error {
	var errs []error
	failed := false
	for batch := range slices.Chunk(changes, maxBatch) {
		for _, err := range n.batch(batch) {
			errs = append(errs, err)
			failed = failed || err != nil
		}
	}
	if !failed {
		return nil
	}
	return errs
}

// batch carries out as many changes as one system call may hold. The kernel answers
// those that fail, and the last in any case.
func (n *rtnetlink) batch(changes []change) []error {
	errs := make([]error, len(changes))
	if err := n.exchange(changes, errs); err != nil {
		n.drop()
		for i := range errs {
			if errs[i] == nil {
				errs[i] = fmt.Errorf("no answer: %w", err)
			}
		}
	}
	return errs
}

// exchange sends changes and notes what each failed with. An error says that the rest
// is not known.
func (n *rtnetlink) exchange(changes []change, errs []error) error {
	if err := n.dial(); err != nil {
		return err
	}
	if err := n.conn.SetDeadline(time.Now().Add(netlinkTimeout)); err != nil {
		return err
	}
	messages := make([]netlink.Message, len(changes))
	for i, c := range changes {
		messages[i] = c.message()
	}
	last := len(messages) - 1
	messages[last].Header.Flags |= netlink.Acknowledge
	sent, err := n.conn.SendMessages(messages)
	if err != nil {
		return err
	}
	for {
		sequence, failure, err := n.answer()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(sent, func(m netlink.Message) bool { return m.Header.Sequence == sequence })
		if i < 0 {
			return errors.New("an answer to another request")
		}
		errs[i] = failure
		if i == last {
			return nil
		}
	}
}

// answer waits for one and returns the number of its request, and what that failed
// with. The library has no word on which of many requests failed.
func (n *rtnetlink) answer() (sequence uint32, failure, err error) {
	raw, err := n.conn.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	const code = unix.SizeofNlMsghdr // struct nlmsgerr: what is negative failed
	var buffer [code + 4]byte        // the rest, a copy of the request, is dropped
	var size int
	var failed error
	if err := raw.Read(func(fd uintptr) bool {
		size, _, failed = unix.Recvfrom(int(fd), buffer[:], unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN
	}); err != nil {
		return 0, nil, err
	}
	if failed != nil {
		return 0, nil, failed
	}
	if size < len(buffer) || binary.NativeEndian.Uint16(buffer[4:]) != unix.NLMSG_ERROR {
		return 0, nil, errors.New("an answer of another form")
	}
	if errno := -int32(binary.NativeEndian.Uint32(buffer[code:])); errno != 0 {
		failure = unix.Errno(errno)
	}
	return binary.NativeEndian.Uint32(buffer[8:]), failure, nil
}

// message returns the request for c: struct ifaddrmsg and attributes.
func (c change) message() netlink.Message {
	m := netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWADDR, Flags: netlink.Request}}
	switch c.kind {
	case add:
		m.Header.Flags |= netlink.Create | netlink.Excl
	case renew:
		m.Header.Flags |= netlink.Create | netlink.Replace
	case remove:
		m.Header.Type = unix.RTM_DELADDR
	}
	// Nobody else can have a VIP while we may add it, so there is nothing to detect.
	flags := uint32(unix.IFA_F_NODAD)
	if c.prefix.IsSingleIP() {
		flags |= unix.IFA_F_NOPREFIXROUTE
	}
	family := byte(unix.AF_INET)
	preferred := uint32(c.life / time.Second)
	if c.prefix.Addr().Is6() {
		family = unix.AF_INET6
		preferred = 0 // the host itself is not to speak from a VIP
	}
	m.Data = append(m.Data, family, byte(c.prefix.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE)
	m.Data = binary.NativeEndian.AppendUint32(m.Data, uint32(c.index))
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.IFA_LOCAL, c.prefix.Addr().AsSlice())
	e.Bytes(unix.IFA_ADDRESS, c.prefix.Addr().AsSlice())
	if c.kind != remove {
		e.Uint32(unix.IFA_FLAGS, flags)
		life := binary.NativeEndian.AppendUint32(nil, preferred)
		life = binary.NativeEndian.AppendUint32(life, uint32(c.life/time.Second))
		e.Bytes(unix.IFA_CACHEINFO, append(life, make([]byte, 8)...)) // and two times that only the kernel sets
	}
	attributes, err := e.Encode()
	if err != nil {
		panic(fmt.Sprintf("vip: %v", err)) // only for attributes longer than 64 KiB
	}
	m.Data = append(m.Data, attributes...)
	return m
}
