package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// command is a request in the kernel's terms.
type command struct {
	cmd   uint8
	dump  bool // the answer is a list
	attrs []byte
}

// encode returns r as a command. r has passed Check.
func encode(r Request) command {
	key := func(b []byte) []byte { return appendKey(b, r.Key) }
	switch r.Op {
	case OpAddService:
		return command{cmd: cmdNewService, attrs: appendService(nil, r.Service)}
	case OpSetService:
		return command{cmd: cmdSetService, attrs: appendService(nil, r.Service)}
	case OpDeleteService:
		return command{cmd: cmdDelService, attrs: appendNest(nil, attrService, key)}
	case OpService:
		return command{cmd: cmdGetService, attrs: appendNest(nil, attrService, key)}
	case OpServices:
		return command{cmd: cmdGetService, dump: true}
	case OpAddDestination:
		return command{cmd: cmdNewDest, attrs: appendDestination(appendNest(nil, attrService, key), r.Destination)}
	case OpSetDestination:
		return command{cmd: cmdSetDest, attrs: appendDestination(appendNest(nil, attrService, key), r.Destination)}
	case OpDeleteDestination:
		return command{cmd: cmdDelDest, attrs: appendNest(appendNest(nil, attrService, key), attrDest, func(b []byte) []byte {
			return appendAddress(b, r.Address)
		})}
	case OpDestinations:
		return command{cmd: cmdGetDest, dump: true, attrs: appendNest(nil, attrService, key)}
	case OpStartDaemon:
		return command{cmd: cmdNewDaemon, attrs: appendDaemon(nil, r.Daemon)}
	case OpStopDaemon:
		return command{cmd: cmdDelDaemon, attrs: appendNest(nil, attrDaemon, func(b []byte) []byte {
			return appendUint32(b, daemonState, uint32(r.Daemon.State))
		})}
	case OpDaemons:
		return command{cmd: cmdGetDaemon, dump: true}
	case OpSetTimeouts:
		return command{cmd: cmdSetConfig, attrs: appendTimeouts(nil, r.Timeouts)}
	case OpTimeouts:
		return command{cmd: cmdGetConfig}
	case OpInfo:
		return command{cmd: cmdGetInfo}
	case OpFlush:
		return command{cmd: cmdFlush}
	case OpZero:
		if r.Key == (ipvs.ServiceKey{}) {
			return command{cmd: cmdZero}
		}
		return command{cmd: cmdZero, attrs: appendNest(nil, attrService, key)}
	}
	panic("kernel: no request: " + r.Op)
}

// appendKey appends what identifies a service. A firewall mark is sent only when
// it is one: the kernel reads a mark of 0 as a service for tcp 0.0.0.0:0.
func appendKey(b []byte, k ipvs.ServiceKey) []byte {
	b = appendUint16(b, svcAF, uint16(k.Family))
	if k.FWMark != 0 {
		return appendUint32(b, svcFWMark, k.FWMark)
	}
	b = appendUint16(b, svcProtocol, uint16(k.Protocol))
	b = appendAddr(b, svcAddr, k.Addr)
	return appendPort(b, svcPort, k.Port)
}

// appendAddr appends an address in network order and 16 bytes; an IPv4 address
// takes the first four.
func appendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	var wire [16]byte
	copy(wire[:], a.AsSlice())
	return appendAttr(b, typ, wire[:]...)
}

func appendService(b []byte, s *ipvs.Service) []byte {
	return appendNest(b, attrService, func(b []byte) []byte {
		b = appendKey(b, s.Key)
		b = appendString(b, svcSchedName, s.Scheduler)
		flags := flagBits(s.Flags)
		if s.Persistence.Timeout != 0 {
			flags |= flagPersistent
		}
		// All bits count: without the mask a set keeps what it does not name. The
		// kernel guards its own HASHED bit.
		b = appendAttr(b, svcFlags, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, flags), 0xffffffff)...)
		b = appendUint32(b, svcTimeout, uint32(s.Persistence.Timeout))
		b = appendAttr(b, svcNetmask, netmask(s)...)
		if s.Persistence.Engine != "" {
			b = appendString(b, svcPEName, s.Persistence.Engine) // a set without it removes the engine
		}
		return b
	})
}

// netmask returns the mask of an IPv4 service in network order, or the prefix
// length of an IPv6 service in host order: the kernel wants it so, and always.
func netmask(s *ipvs.Service) []byte {
	p := s.Persistence
	if s.Key.Family == ipvs.IPv6 {
		if p.Prefix == 0 {
			p.Prefix = 128
		}
		return binary.NativeEndian.AppendUint32(nil, uint32(p.Prefix))
	}
	if !p.Netmask.IsValid() {
		return []byte{255, 255, 255, 255}
	}
	return p.Netmask.AsSlice()
}

// schedulerFlags are the flags that share each of the kernel's scheduler bits.
var schedulerFlags = []struct {
	bit   uint32
	flags ipvs.Flags
	name  ipvs.Flags // the general one
}{
	{flagSched1, ipvs.SHFallback | ipvs.MHFallback | ipvs.Flag1, ipvs.Flag1},
	{flagSched2, ipvs.SHPort | ipvs.MHPort | ipvs.Flag2, ipvs.Flag2},
	{flagSched3, ipvs.Flag3, ipvs.Flag3},
}

func flagBits(f ipvs.Flags) uint32 {
	var bits uint32
	if f&ipvs.OnePacket != 0 {
		bits |= flagOnePacket
	}
	for _, s := range schedulerFlags {
		if f&s.flags != 0 {
			bits |= s.bit
		}
	}
	return bits
}

func appendAddress(b []byte, a netip.AddrPort) []byte {
	b = appendAddr(b, destAddr, a.Addr())
	b = appendPort(b, destPort, a.Port())
	return appendUint16(b, destAddrFamily, uint16(ipvs.FamilyOf(a.Addr())))
}

// appendDestination appends d whole: what a set leaves out, the kernel resets.
func appendDestination(b []byte, d *ipvs.Destination) []byte {
	return appendNest(b, attrDest, func(b []byte) []byte {
		b = appendAddress(b, d.Addr)
		b = appendUint32(b, destFwdMethod, uint32(d.Forward))
		b = appendUint32(b, destWeight, uint32(d.Weight))
		b = appendUint32(b, destUThresh, uint32(d.Upper))
		b = appendUint32(b, destLThresh, uint32(d.Lower))
		b = appendAttr(b, destTunType, byte(d.Tunnel.Type))
		b = appendPort(b, destTunPort, d.Tunnel.Port)
		return appendUint16(b, destTunFlags, uint16(d.Tunnel.Checksum))
	})
}

// appendDaemon leaves out what is zero, so that the kernel's defaults count. The
// port, unlike those of services, is in host order.
func appendDaemon(b []byte, d ipvs.Daemon) []byte {
	return appendNest(b, attrDaemon, func(b []byte) []byte {
		b = appendUint32(b, daemonState, uint32(d.State))
		b = appendString(b, daemonMcastIfn, d.Interface)
		b = appendUint32(b, daemonSyncID, d.SyncID)
		if d.MaxLen != 0 {
			b = appendUint16(b, daemonSyncMaxLen, d.MaxLen)
		}
		switch {
		case d.Group.Is4():
			b = appendAttr(b, daemonMcastGroup, d.Group.AsSlice()...)
		case d.Group.Is6():
			b = appendAttr(b, daemonMcastGroup6, d.Group.AsSlice()...)
		}
		if d.Port != 0 {
			b = appendUint16(b, daemonMcastPort, d.Port)
		}
		if d.TTL != 0 {
			b = appendAttr(b, daemonMcastTTL, d.TTL)
		}
		return b
	})
}

func appendTimeouts(b []byte, t ipvs.Timeouts) []byte {
	b = appendUint32(b, attrTimeoutTCP, uint32(t.TCP))
	b = appendUint32(b, attrTimeoutTCPFin, uint32(t.TCPFin))
	return appendUint32(b, attrTimeoutUDP, uint32(t.UDP))
}
