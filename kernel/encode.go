package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// commandOf returns the command of r, and how it is answered: with a list, with an
// acknowledgement, without which a success is not answered, or else with a message.
func commandOf(r Request) (cmd uint8, flags netlink.HeaderFlags) {
	const (
		get  = netlink.Request
		list = netlink.Request | netlink.Dump
		edit = netlink.Request | netlink.Acknowledge
	)
	switch r.Op {
	case OpAddService:
		return cmdNewService, edit
	case OpSetService:
		return cmdSetService, edit
	case OpDeleteService:
		return cmdDelService, edit
	case OpService:
		return cmdGetService, get
	case OpServices:
		return cmdGetService, list
	case OpAddDestination:
		return cmdNewDest, edit
	case OpSetDestination:
		return cmdSetDest, edit
	case OpDeleteDestination:
		return cmdDelDest, edit
	case OpDestinations:
		return cmdGetDest, list
	case OpStartDaemon:
		return cmdNewDaemon, edit
	case OpStopDaemon:
		return cmdDelDaemon, edit
	case OpDaemons:
		return cmdGetDaemon, list
	case OpSetTimeouts:
		return cmdSetConfig, edit
	case OpTimeouts:
		return cmdGetConfig, get
	case OpInfo:
		return cmdGetInfo, get
	case OpFlush:
		return cmdFlush, edit
	case OpZero:
		return cmdZero, edit
	}
	panic("kernel: no request: " + r.Op)
}

// appendAttributes appends what r is about.
func appendAttributes(b []byte, r Request) []byte {
	switch r.Op {
	case OpAddService, OpSetService:
		return appendService(b, r.Service)
	case OpDeleteService, OpService, OpDestinations:
		return appendServiceKey(b, r.Key)
	case OpZero:
		if r.Key == (ipvs.ServiceKey{}) {
			return b
		}
		return appendServiceKey(b, r.Key)
	case OpAddDestination, OpSetDestination:
		return appendDestination(appendServiceKey(b, r.Key), r.Destination)
	case OpDeleteDestination:
		return appendNest(appendServiceKey(b, r.Key), attrDest, func(b []byte) []byte {
			return appendAddress(b, r.Address)
		})
	case OpStartDaemon:
		return appendDaemon(b, r.Daemon)
	case OpStopDaemon:
		return appendNest(b, attrDaemon, func(b []byte) []byte {
			return appendUint32(b, daemonState, uint32(r.Daemon.State))
		})
	case OpSetTimeouts:
		return appendTimeouts(b, r.Timeouts)
	}
	return b
}

func appendServiceKey(b []byte, k ipvs.ServiceKey) []byte {
	return appendNest(b, attrService, func(b []byte) []byte { return appendKey(b, k) })
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

// appendDestination appends d whole: what a set leaves out, the kernel resets, which
// is what a plain destination's tunnel options come to.
func appendDestination(b []byte, d *ipvs.Destination) []byte {
	return appendNest(b, attrDest, func(b []byte) []byte {
		b = appendAddress(b, d.Addr)
		b = appendUint32(b, destFwdMethod, uint32(d.Forward))
		b = appendUint32(b, destWeight, uint32(d.Weight))
		b = appendUint32(b, destUThresh, uint32(d.Upper))
		b = appendUint32(b, destLThresh, uint32(d.Lower))
		if d.Tunnel == (ipvs.TunnelOptions{}) {
			return b
		}
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
