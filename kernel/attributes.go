package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Netlink attributes (linux/netlink.h, struct nlattr): two bytes length, header
// included, two bytes type, the payload, padding to four bytes. The walk here
// neither copies nor allocates, unlike netlink.AttributeDecoder: a large table has
// millions of them.

const (
	attrHeader   = 4
	attrTypeMask = 0x3fff // the upper bits are NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

var errAttribute = errors.New("an attribute's length does not fit its message")

// walk calls fn with each attribute of b; data is part of b.
func walk(b []byte, fn func(typ uint16, data []byte) error) error {
	for len(b) > 0 {
		if len(b) < attrHeader {
			return errAttribute
		}
		length := int(binary.NativeEndian.Uint16(b))
		if length < attrHeader || length > len(b) {
			return errAttribute
		}
		typ := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
		if err := fn(typ, b[attrHeader:length]); err != nil {
			return fmt.Errorf("attribute %d: %w", typ, err)
		}
		b = b[min(align(length), len(b)):]
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }

func appendAttr(b []byte, typ uint16, data ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, align(len(data))-len(data))...)
}

func appendUint16(b []byte, typ, v uint16) []byte {
	return appendAttr(b, typ, binary.NativeEndian.AppendUint16(nil, v)...)
}

func appendUint32(b []byte, typ uint16, v uint32) []byte {
	return appendAttr(b, typ, binary.NativeEndian.AppendUint32(nil, v)...)
}

// appendPort appends v in network byte order.
func appendPort(b []byte, typ, v uint16) []byte {
	return appendAttr(b, typ, byte(v>>8), byte(v))
}

// appendString appends s with the NUL that the kernel insists on.
func appendString(b []byte, typ uint16, s string) []byte {
	return appendAttr(b, typ, append([]byte(s), 0)...)
}

// appendNest appends an attribute that holds what fill appends.
func appendNest(b []byte, typ uint16, fill func(b []byte) []byte) []byte {
	const nested = 0x8000 // NLA_F_NESTED
	start := len(b)
	b = fill(appendAttr(b, typ|nested))
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	return b
}
