package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// The limit: requests that were encoded before the clock starts, sent in buffers of
// 64 KiB with one acknowledgement for each, and answers of which only the headers
// are looked at. Errors end it, but say nothing of the object.

const (
	buffer = 64 << 10

	newService, getService, newDest, setDest, getDest = 1, 4, 5, 6, 8
)

type rawSocket struct {
	fd     int
	family uint16
	in     []byte
}

func dialRaw(b *testing.B) *rawSocket {
	b.Helper()
	c, err := genetlink.Dial(nil)
	must(b, err)
	defer c.Close()
	family, err := c.GetFamily("IPVS")
	must(b, err)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	must(b, err)
	b.Cleanup(func() { _ = unix.Close(fd) })
	must(b, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	return &rawSocket{fd: fd, family: family.ID, in: make([]byte, 32<<10)}
}

func attr(b []byte, typ uint16, data ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func u16(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }
func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func address(b []byte, typ uint16, a netip.Addr) []byte {
	wire := [16]byte{}
	copy(wire[:], a.AsSlice())
	return attr(b, typ, wire[:]...)
}

func key(k ipvs.ServiceKey) []byte {
	b := attr(nil, 1, u16(uint16(k.Family))...)
	b = attr(b, 2, u16(uint16(k.Protocol))...)
	b = address(b, 3, k.Addr)
	return attr(b, 4, byte(k.Port>>8), byte(k.Port))
}

func (r *rawSocket) request(b []byte, cmd byte, flags uint16, attrs []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(20+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, r.family)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, make([]byte, 8)...)
	b = append(b, cmd, 1, 0, 0)
	return append(b, attrs...)
}

// buffers are requests that are sent together.
type buffers struct {
	raw  *rawSocket
	done [][]byte
	b    []byte
	last int // where the last request in b begins
}

func (u *buffers) add(cmd byte, attrs []byte) {
	if len(u.b)+20+len(attrs) > buffer {
		u.end()
	}
	u.last = len(u.b)
	u.b = u.raw.request(u.b, cmd, 0, attrs)
}

// end asks for an acknowledgement of the last request.
func (u *buffers) end() {
	binary.NativeEndian.PutUint16(u.b[u.last+6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	u.done = append(u.done, u.b)
	u.b = nil
}

// encode returns the buffers that load a table.
func (r *rawSocket) encode(services []ipvs.Service) [][]byte {
	u := &buffers{raw: r}
	for _, s := range services {
		netmask := []byte{255, 255, 255, 255}
		if s.Key.Family == ipvs.IPv6 {
			netmask = u32(128)
		}
		service := attr(key(s.Key), 6, append([]byte(s.Scheduler), 0)...)
		service = attr(service, 7, 0, 0, 0, 0, 255, 255, 255, 255)
		service = attr(service, 8, u32(0)...)
		service = attr(service, 9, netmask...)
		u.add(newService, attr(nil, 1, service...))
		for _, d := range s.Destinations {
			u.add(newDest, destination(s.Key, d))
		}
	}
	u.end()
	return u.done
}

func destination(k ipvs.ServiceKey, d ipvs.Destination) []byte {
	dest := address(nil, 1, d.Addr.Addr())
	dest = attr(dest, 2, byte(d.Addr.Port()>>8), byte(d.Addr.Port()))
	dest = attr(dest, 3, u32(uint32(d.Forward))...)
	dest = attr(dest, 4, u32(uint32(d.Weight))...)
	dest = attr(dest, 5, u32(0)...)
	dest = attr(dest, 6, u32(0)...)
	dest = attr(dest, 11, u16(uint16(k.Family))...)
	return attr(attr(nil, 1, key(k)...), 2, dest...)
}

// load sends each buffer and waits for its acknowledgement.
func (r *rawSocket) load(buffers [][]byte) error {
	for _, b := range buffers {
		if _, err := unix.Write(r.fd, b); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		n, err := unix.Read(r.fd, r.in)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if n < 20 {
			return errors.New("a short answer")
		}
		if code := int32(binary.NativeEndian.Uint32(r.in[16:])); code != 0 {
			return unix.Errno(-code)
		}
	}
	return nil
}

// dump sends request and returns how many objects the answer has.
func (r *rawSocket) dump(request []byte) (objects int, err error) {
	if _, err := unix.Write(r.fd, request); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	for {
		n, err := unix.Read(r.fd, r.in)
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		for b := r.in[:n]; len(b) >= 16; b = b[min(len(b), int(binary.NativeEndian.Uint32(b)+3)&^3):] {
			switch typ := binary.NativeEndian.Uint16(b[4:]); typ {
			case unix.NLMSG_DONE:
				return objects, nil
			case r.family:
				objects++
			default:
				return 0, fmt.Errorf("a message of type %d", typ)
			}
		}
	}
}
