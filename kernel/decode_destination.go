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

// decodeDestination reads a destination of a service of the given family.
func decodeDestination(family ipvs.Family, b []byte) (ipvs.DestinationEntry, error) {
	r := rawDestination{family: uint16(family)} // Linux before 3.18 sends none
	b, err := nest(b, attrDest)
	if err == nil {
		err = walk(b, r.attribute)
	}
	if err != nil {
		return ipvs.DestinationEntry{}, err
	}
	return r.entry()
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
	case destStats, destStats64:
		return r.stats.read(data, typ == destStats64)
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

func (r *rawDestination) entry() (ipvs.DestinationEntry, error) {
	addr, err := address(ipvs.Family(r.family), r.addr)
	if err != nil {
		return ipvs.DestinationEntry{}, fmt.Errorf("attribute %d: %w", destAddr, err)
	}
	return ipvs.DestinationEntry{
		Destination: ipvs.Destination{
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
		},
		ActiveConnections:     r.active,
		InactiveConnections:   r.inactive,
		PersistentConnections: r.persistent,
		Stats:                 r.stats.Stats,
	}, nil
}

// rawStats prefers the 64-bit counters, which Linux has since 4.1, to the others.
type rawStats struct {
	ipvs.Stats
	wide bool
}

func (r *rawStats) read(b []byte, wide bool) error {
	if r.wide && !wide {
		return nil
	}
	r.wide = wide
	return walk(b, func(typ uint16, data []byte) error {
		v := r.counter(typ)
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
}

func (r *rawStats) counter(typ uint16) *uint64 {
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
