package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// The decoders read the payload of one message. They ignore attributes they do not
// know, and return an error, never a guess, for one that is too short, too long or
// missing.

var errLength = errors.New("unexpected length")

func readUint16(b []byte, v *uint16) error {
	if len(b) != 2 {
		return errLength
	}
	*v = binary.NativeEndian.Uint16(b)
	return nil
}

func readUint32(b []byte, v *uint32) error {
	if len(b) != 4 {
		return errLength
	}
	*v = binary.NativeEndian.Uint32(b)
	return nil
}

// readPort reads a port in network order.
func readPort(b []byte, v *uint16) error {
	if len(b) != 2 {
		return errLength
	}
	*v = binary.BigEndian.Uint16(b)
	return nil
}

// readString reads a string up to its NUL.
func readString(b []byte, v *string) error {
	text, _, ok := strings.Cut(string(b), "\x00")
	if !ok {
		return errors.New("the string has no end")
	}
	*v = text
	return nil
}

// readName reads the name of a scheduler or persistence engine. A table repeats few
// of them many times.
func readName(b []byte, v *string) error {
	if n := len(b) - 1; n >= 0 && b[n] == 0 {
		if known, ok := names[string(b[:n])]; ok {
			*v = known
			return nil
		}
	}
	return readString(b, v)
}

var names = func() map[string]string {
	m := map[string]string{"none": "none", "sip": "sip"}
	for _, name := range ipvs.Schedulers() {
		m[name] = name
	}
	return m
}()

// address reads an address of family f from the kernel's 16 bytes.
func address(f ipvs.Family, b []byte) (netip.Addr, error) {
	switch {
	case f == ipvs.IPv4 && (len(b) == 16 || len(b) == 4):
		return netip.AddrFrom4([4]byte(b)), nil
	case f == ipvs.IPv6 && len(b) == 16:
		return netip.AddrFrom16([16]byte(b)), nil
	}
	return netip.Addr{}, fmt.Errorf("%d bytes are no address of %s", len(b), f)
}

// nest returns the payload of the attribute typ.
func nest(b []byte, typ uint16) (data []byte, err error) {
	err = walk(b, func(t uint16, d []byte) error {
		if t == typ {
			data = d
		}
		return nil
	})
	if err == nil && data == nil {
		err = fmt.Errorf("attribute %d is missing", typ)
	}
	return data, err
}

func decodeDaemon(b []byte) (ipvs.Daemon, error) {
	var d ipvs.Daemon
	b, err := nest(b, attrDaemon)
	if err != nil {
		return ipvs.Daemon{}, err
	}
	err = walk(b, func(typ uint16, data []byte) error {
		switch typ {
		case daemonState:
			return readUint32(data, (*uint32)(&d.State))
		case daemonMcastIfn:
			return readString(data, &d.Interface)
		case daemonSyncID:
			return readUint32(data, &d.SyncID)
		case daemonSyncMaxLen:
			return readUint16(data, &d.MaxLen)
		case daemonMcastGroup:
			d.Group, err = address(ipvs.IPv4, data)
			return err
		case daemonMcastGroup6:
			d.Group, err = address(ipvs.IPv6, data)
			return err
		case daemonMcastPort:
			return readUint16(data, &d.Port)
		case daemonMcastTTL:
			if len(data) != 1 {
				return errLength
			}
			d.TTL = data[0]
		}
		return nil
	})
	if err != nil {
		return ipvs.Daemon{}, err
	}
	return d, nil
}

func decodeTimeouts(b []byte) (ipvs.Timeouts, error) {
	var t ipvs.Timeouts
	err := walk(b, func(typ uint16, data []byte) error {
		switch typ {
		case attrTimeoutTCP:
			return readUint32(data, (*uint32)(&t.TCP))
		case attrTimeoutTCPFin:
			return readUint32(data, (*uint32)(&t.TCPFin))
		case attrTimeoutUDP:
			return readUint32(data, (*uint32)(&t.UDP))
		}
		return nil
	})
	return t, err
}

func decodeInfo(b []byte) (ipvs.Info, error) {
	var info ipvs.Info
	err := walk(b, func(typ uint16, data []byte) error {
		switch typ {
		case infoVersion:
			return readUint32(data, &info.Version)
		case infoConnTabSize:
			return readUint32(data, &info.ConnTableSize)
		}
		return nil
	})
	return info, err
}
