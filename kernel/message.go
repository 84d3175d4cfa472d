package kernel

import (
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/mdlayher/netlink"
)

// Netlink messages (linux/netlink.h, struct nlmsghdr, and linux/genetlink.h, struct
// genlmsghdr): four bytes length, header included, two bytes type, two bytes flags,
// four bytes sequence number, four bytes port, which the kernel fills in; then one
// byte command, one byte version, two bytes for nothing; then attributes.

const (
	messageHeader = 16
	genericHeader = 4

	offsetType     = 4
	offsetFlags    = 6
	offsetSequence = 8
)

var errMessage = errors.New("a message's length does not fit its datagram")

// appendRequest appends r as a message, whose type and sequence number are left to
// stamp. r has passed Check.
func appendRequest(b []byte, r Request) []byte {
	start := len(b)
	cmd, flags := commandOf(r)
	b = append(b, make([]byte, messageHeader)...)
	b = append(b, cmd, familyVersion, 0, 0)
	b = appendAttributes(b, r)
	m := b[start:]
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	putFlags(m, flags)
	return b
}

func putFlags(m []byte, flags netlink.HeaderFlags) {
	binary.NativeEndian.PutUint16(m[offsetFlags:], uint16(flags))
}

// stamp addresses the request at the start of m.
func stamp(m []byte, family uint16, sequence uint32) {
	binary.NativeEndian.PutUint16(m[offsetType:], family)
	binary.NativeEndian.PutUint32(m[offsetSequence:], sequence)
}

// message is one of the kernel's; data is part of the datagram.
type message struct {
	kind     netlink.HeaderType
	flags    netlink.HeaderFlags
	sequence uint32
	data     []byte
}

// cut returns the first message of a datagram and what follows it.
func cut(b []byte) (m message, rest []byte, err error) {
	if len(b) < messageHeader {
		return message{}, nil, errMessage
	}
	length := int(binary.NativeEndian.Uint32(b))
	if length < messageHeader || length > len(b) {
		return message{}, nil, errMessage
	}
	m = message{
		kind:     netlink.HeaderType(binary.NativeEndian.Uint16(b[offsetType:])),
		flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[offsetFlags:])),
		sequence: binary.NativeEndian.Uint32(b[offsetSequence:]),
		data:     b[messageHeader:length],
	}
	return m, b[min(align(length), len(b)):], nil
}

// verdict returns what a message of kind Error or Done says, 0 for success.
func (m message) verdict() (syscall.Errno, error) {
	if len(m.data) < 4 {
		return 0, errMessage
	}
	code := int32(binary.NativeEndian.Uint32(m.data))
	if code > 0 {
		return 0, errors.New("an error that is no error number")
	}
	return syscall.Errno(-code), nil
}

// payload returns the attributes of a message of the family.
func (m message) payload() ([]byte, error) {
	if len(m.data) < genericHeader {
		return nil, errMessage
	}
	return m.data[genericHeader:], nil
}
