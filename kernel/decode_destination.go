package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// rawDestination is a destination as it comes over the wire.
type rawDestination struct {
	family, port, tunnelPort, tunnelFlags uint16
	addr                                  []byte
	forward, weight, upper, lower         uint32
	tunnelType                            uint8
	active, inactive, persistent          uint32
	stats                                 rawStats
}

// decodeDestination reads a destination of a service of the given family, its
// connections and counters.
func decodeDestination(family ipvs.Family, b []byte) (ipvs.DestinationEntry, error) {
	var r rawDestination
	b, err := nest(b, attrDest)
	if err != nil {
		return ipvs.DestinationEntry{}, err
	}
	d, err := r.decode(family, b)
	if err != nil {
		return ipvs.DestinationEntry{}, err
	}
	stats, err := r.stats.counters()
	if err != nil {
		return ipvs.DestinationEntry{}, err
	}
	return ipvs.DestinationEntry{
		Destination:           d,
		ActiveConnections:     r.active,
		InactiveConnections:   r.inactive,
		PersistentConnections: r.persistent,
		Stats:                 stats,
	}, nil
}

// decode reads what is in the nest of a destination of a service of the given family.
func (r *rawDestination) decode(family ipvs.Family, b []byte) (ipvs.Destination, error) {
	r.family = uint16(family) // Linux before 3.18 sends none
	var err error
	for err == nil && len(b) > 0 { // as walk does, but without a closure, which takes as long as the rest
		typ, data, rest, ok := cutAttr(b)
		if !ok {
			err = errAttribute
		} else if err = r.attribute(typ, data); err != nil {
			err = attributeError(typ, err)
		}
		b = rest
	}
	if err != nil {
		return ipvs.Destination{}, err
	}
	return r.destination()
}

func (r *rawDestination) attribute(typ uint16, data []byte) error {
	switch typ {
	case destAddr:
		r.addr = data
	case destPort:
		return readPort(data, &r.port)
	case destFwdMethod:
		return readUint32(data, &r.forward)
	case destWeight:
		return readUint32(data, &r.weight)
	case destUThresh:
		return readUint32(data, &r.upper)
	case destLThresh:
		return readUint32(data, &r.lower)
	case destActiveConns:
		return readUint32(data, &r.active)
	case destInactConns:
		return readUint32(data, &r.inactive)
	case destPersistConns:
		return readUint32(data, &r.persistent)
	case destStats:
		r.stats.narrow = data
	case destStats64:
		r.stats.wide = data
	case destAddrFamily:
		return readUint16(data, &r.family)
	case destTunType:
		if len(data) != 1 {
			return errLength
		}
		r.tunnelType = data[0]
	case destTunPort:
		return readPort(data, &r.tunnelPort)
	case destTunFlags:
		return readUint16(data, &r.tunnelFlags)
	}
	return nil
}

func (r *rawDestination) destination() (ipvs.Destination, error) {
	addr, err := address(ipvs.Family(r.family), r.addr)
	if err != nil {
		return ipvs.Destination{}, fmt.Errorf("attribute %d: %w", destAddr, err)
	}
	return ipvs.Destination{
		Addr:    netip.AddrPortFrom(addr, r.port),
		Forward: ipvs.Forward(r.forward & forwardMask),
		Weight:  int32(r.weight),
		Upper:   int32(r.upper),
		Lower:   int32(r.lower),
		Tunnel: ipvs.TunnelOptions{
			Type:     ipvs.TunnelType(r.tunnelType),
			Port:     r.tunnelPort,
			Checksum: ipvs.Checksum(r.tunnelFlags),
		},
	}, nil
}

// rawStats are counters of 32 and, since Linux 4.1, of 64 bits. They are read only
// where they are wanted: they are most of a message, and a table has none.
type rawStats struct {
	narrow, wide []byte
}

// counters prefers the wide ones.
func (r rawStats) counters() (ipvs.Stats, error) {
	b := r.narrow
	if r.wide != nil {
		b = r.wide
	}
	var stats ipvs.Stats
	err := walk(b, func(typ uint16, data []byte) error {
		v := counter(&stats, typ)
		switch {
		case v == nil:
			return nil
		case len(data) == 8:
			*v = binary.NativeEndian.Uint64(data)
		case len(data) == 4:
			*v = uint64(binary.NativeEndian.Uint32(data))
		default:
			return errLength
		}
		return nil
	})
	return stats, err
}

func counter(r *ipvs.Stats, typ uint16) *uint64 {
	switch typ {
	case statsConns:
		return &r.Connections
	case statsInPkts:
		return &r.InPackets
	case statsOutPkts:
		return &r.OutPackets
	case statsInBytes:
		return &r.InBytes
	case statsOutBytes:
		return &r.OutBytes
	case statsCPS:
		return &r.Rates.Connections
	case statsInPPS:
		return &r.Rates.InPackets
	case statsOutPPS:
		return &r.Rates.OutPackets
	case statsInBPS:
		return &r.Rates.InBytes
	case statsOutBPS:
		return &r.Rates.OutBytes
	}
	return nil
}
