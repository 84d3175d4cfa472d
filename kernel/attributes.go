package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Netlink attributes (linux/netlink.h, struct nlattr): two bytes length, header
// included, two bytes type, the payload, padding to four bytes. They are read
// without copying or allocating, unlike by netlink.AttributeDecoder: a large table
// has millions of them.

const (
	attrHeader   = 4
	attrTypeMask = 0x3fff // the upper bits are NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

var errAttribute = errors.New("an attribute's length does not fit its message")

// cutAttr returns the first attribute of b and what follows it; data is part of b.
func cutAttr(b []byte) (typ uint16, data, rest []byte, ok bool) {
	if len(b) < attrHeader {
		return 0, nil, nil, false
	}
	length := int(binary.NativeEndian.Uint16(b))
	if length < attrHeader || length > len(b) {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[2:]) & attrTypeMask, b[attrHeader:length], b[min(align(length), len(b)):], true
}

// walk calls fn with each attribute of b; data is part of b.
func walk(b []byte, fn func(typ uint16, data []byte) error) error {
	for len(b) > 0 {
		typ, data, rest, ok := cutAttr(b)
		if !ok {
			return errAttribute
		}
		if err := fn(typ, data); err != nil {
			return attributeError(typ, err)
		}
		b = rest
	}
	return nil
}

func attributeError(typ uint16, err error) error { return fmt.Errorf("attribute %d: %w", typ, err) }

func align(n int) int { return (n + 3) &^ 3 }

func appendAttr(b []byte, typ uint16, data ...byte) []byte {
	return appendRaw(b, typ, func(b []byte) []byte { return append(b, data...) })
}

// appendRaw appends an attribute that holds what fill appends.
func appendRaw(b []byte, typ uint16, fill func(b []byte) []byte) []byte {
	start := len(b)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = fill(b)
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	return append(b, "\x00\x00\x00"[:align(len(b))-len(b)]...)
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
	return appendRaw(b, typ, func(b []byte) []byte { return append(append(b, s...), 0) })
}

// appendNest appends an attribute that holds what fill appends.
func appendNest(b []byte, typ uint16, fill func(b []byte) []byte) []byte {
	const nested = 0x8000 // NLA_F_NESTED
	return appendRaw(b, typ|nested, fill)
}
