package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// rawService is a service as it comes over the wire, in whichever order.
type rawService struct {
	family, protocol, port uint16
	addr, netmask          []byte
	mark, flags, timeout   uint32
	scheduler, engine      string
	stats                  rawStats
}

// decodeService reads a service and its counters.
func decodeService(b []byte) (ipvs.ServiceEntry, error) {
	var r rawService
	s, err := r.decode(b)
	if err != nil {
		return ipvs.ServiceEntry{}, err
	}
	stats, err := r.stats.counters()
	if err != nil {
		return ipvs.ServiceEntry{}, err
	}
	return ipvs.ServiceEntry{Service: s, Stats: stats}, nil
}

// decode reads a service, which is in canonical form.
func (r *rawService) decode(b []byte) (ipvs.Service, error) {
	b, err := nest(b, attrService)
	if err == nil {
		err = walk(b, r.attribute)
	}
	if err != nil {
		return ipvs.Service{}, err
	}
	return r.service()
}

func (r *rawService) attribute(typ uint16, data []byte) error {
	switch typ {
	case svcAF:
		return readUint16(data, &r.family)
	case svcProtocol:
		return readUint16(data, &r.protocol)
	case svcAddr:
		r.addr = data
	case svcPort:
		return readPort(data, &r.port)
	case svcFWMark:
		return readUint32(data, &r.mark)
	case svcSchedName:
		return readName(data, &r.scheduler)
	case svcFlags:
		if len(data) != 8 { // flags and mask
			return errLength
		}
		return readUint32(data[:4], &r.flags)
	case svcTimeout:
		return readUint32(data, &r.timeout)
	case svcNetmask:
		if len(data) != 4 {
			return errLength
		}
		r.netmask = data
	case svcStats:
		r.stats.narrow = data
	case svcStats64:
		r.stats.wide = data
	case svcPEName:
		return readName(data, &r.engine)
	}
	return nil
}

func (r *rawService) service() (ipvs.Service, error) {
	key, err := r.key()
	if err != nil {
		return ipvs.Service{}, err
	}
	s := ipvs.Service{Key: key, Scheduler: r.scheduler, Flags: flagsOf(r.scheduler, r.flags)}
	s.Persistence.Engine = r.engine
	if r.flags&flagPersistent != 0 { // timeout and netmask mean nothing without it
		s.Persistence.Timeout = ipvs.Seconds(r.timeout)
		if err := r.readNetmask(&s); err != nil {
			return ipvs.Service{}, err
		}
	}
	return s.Normalize(), nil
}

func (r *rawService) key() (ipvs.ServiceKey, error) {
	family := ipvs.Family(r.family)
	if r.mark != 0 && (family == ipvs.IPv4 || family == ipvs.IPv6) {
		return ipvs.ServiceMarked(family, r.mark), nil
	}
	addr, err := address(family, r.addr)
	if err != nil {
		return ipvs.ServiceKey{}, fmt.Errorf("attribute %d: %w", svcAddr, err)
	}
	return ipvs.ServiceAt(ipvs.Protocol(r.protocol), netip.AddrPortFrom(addr, r.port)), nil
}

func (r *rawService) readNetmask(s *ipvs.Service) error {
	if r.netmask == nil {
		return fmt.Errorf("attribute %d is missing", svcNetmask)
	}
	if s.Key.Family == ipvs.IPv4 {
		s.Persistence.Netmask = netip.AddrFrom4([4]byte(r.netmask))
		return nil
	}
	prefix := binary.NativeEndian.Uint32(r.netmask)
	if prefix > 128 {
		return fmt.Errorf("attribute %d: %d is no prefix length", svcNetmask, prefix)
	}
	s.Persistence.Prefix = uint8(prefix)
	return nil
}

// flagsOf names the scheduler bits as scheduler understands them.
func flagsOf(scheduler string, bits uint32) ipvs.Flags {
	var f ipvs.Flags
	if bits&flagOnePacket != 0 {
		f |= ipvs.OnePacket
	}
	for _, s := range schedulerFlags {
		if bits&s.bit != 0 {
			f |= s.name
		}
	}
	return ipvs.Service{Scheduler: scheduler, Flags: f}.Normalize().Flags
}
