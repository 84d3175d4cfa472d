package kerneltest

import (
	"net/netip"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// optional is a scheduler that distributions leave out of their kernels.
const optional = "twos"

// Services returns one service for each thing that can be said about one, in
// canonical form and each with its own key: both families and firewall marks, every
// protocol, scheduler but one, flag and kind of persistence.
func Services() []ipvs.Service {
	port := uint16(1000)
	next := func(p ipvs.Protocol, addr string) ipvs.ServiceKey {
		port++
		return ipvs.ServiceAt(p, netip.AddrPortFrom(netip.MustParseAddr(addr), port))
	}
	const v4, v6 = "10.9.0.100", "2001:db8::100"
	plain := func(key ipvs.ServiceKey) ipvs.Service { return ipvs.Service{Key: key, Scheduler: "wlc"} }
	var services []ipvs.Service
	add := func(key ipvs.ServiceKey, change func(s *ipvs.Service)) {
		s := plain(key)
		if change != nil {
			change(&s)
		}
		services = append(services, s.Normalize())
	}
	for _, p := range []ipvs.Protocol{ipvs.TCP, ipvs.UDP, ipvs.SCTP} {
		add(next(p, v4), nil)
		add(next(p, v6), nil)
	}
	for _, f := range []ipvs.Family{ipvs.IPv4, ipvs.IPv6} {
		add(ipvs.ServiceMarked(f, 1), nil)
		add(ipvs.ServiceMarked(f, 0xffffffff), func(s *ipvs.Service) { s.Flags = ipvs.OnePacket })
	}
	for _, name := range ipvs.Schedulers() {
		if name == optional {
			continue
		}
		add(next(ipvs.TCP, v4), func(s *ipvs.Service) { s.Scheduler = name })
	}
	for _, addr := range []string{v4, v6} {
		add(next(ipvs.UDP, addr), func(s *ipvs.Service) { s.Flags = ipvs.OnePacket })
		add(next(ipvs.TCP, addr), func(s *ipvs.Service) { s.Scheduler, s.Flags = "sh", ipvs.SHFallback|ipvs.SHPort })
		add(next(ipvs.TCP, addr), func(s *ipvs.Service) { s.Scheduler, s.Flags = "sh", ipvs.SHPort })
		add(next(ipvs.TCP, addr), func(s *ipvs.Service) { s.Scheduler, s.Flags = "mh", ipvs.MHFallback })
		add(next(ipvs.TCP, addr), func(s *ipvs.Service) { s.Scheduler, s.Flags = "mh", ipvs.MHPort|ipvs.Flag3 })
		for _, flag := range []ipvs.Flags{ipvs.Flag1, ipvs.Flag2, ipvs.Flag3} {
			add(next(ipvs.TCP, addr), func(s *ipvs.Service) { s.Scheduler, s.Flags = "rr", flag })
		}
		for _, timeout := range []ipvs.Seconds{1, 300, ipvs.MaxTimeout} {
			add(next(ipvs.TCP, addr), func(s *ipvs.Service) { s.Persistence.Timeout = timeout })
		}
		add(next(ipvs.UDP, addr), func(s *ipvs.Service) {
			s.Persistence = ipvs.Persistence{Timeout: 360, Engine: "sip"}
			s.Flags = ipvs.OnePacket
		})
	}
	for _, mask := range []string{"255.255.255.0", "255.0.0.0", "255.255.255.254"} {
		add(next(ipvs.TCP, v4), func(s *ipvs.Service) {
			s.Persistence = ipvs.Persistence{Timeout: 60, Netmask: netip.MustParseAddr(mask)}
		})
	}
	for _, prefix := range []uint8{1, 64, 127} {
		add(next(ipvs.SCTP, v6), func(s *ipvs.Service) { s.Persistence = ipvs.Persistence{Timeout: 60, Prefix: prefix} })
	}
	add(ipvs.ServiceMarked(ipvs.IPv4, 7), func(s *ipvs.Service) {
		s.Persistence = ipvs.Persistence{Timeout: 60, Netmask: netip.MustParseAddr("255.255.0.0")}
	})
	add(ipvs.ServiceMarked(ipvs.IPv6, 7), func(s *ipvs.Service) { s.Persistence = ipvs.Persistence{Timeout: 60, Prefix: 48} })
	add(ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("10.9.0.100:0")), func(s *ipvs.Service) { s.Persistence.Timeout = 60 })
	return services
}

// Destinations returns one destination of a service for port 80 for each thing that
// can be said about one, each with its own address; ipv4 and ipv6 say of which
// families.
func Destinations(ipv4, ipv6 bool) []ipvs.Destination {
	var destinations []ipvs.Destination
	add := func(addr netip.AddrPort, d ipvs.Destination) {
		d.Addr = addr
		destinations = append(destinations, d)
	}
	variants := []ipvs.Destination{
		{Forward: ipvs.DRoute, Weight: 1},
		{Forward: ipvs.Masq, Weight: 0},
		{Forward: ipvs.Masq, Weight: 1<<31 - 1},
		{Forward: ipvs.DRoute, Weight: 65536, Upper: 100, Lower: 10},
		{Forward: ipvs.DRoute, Weight: 1, Upper: 1<<31 - 1},
		{Forward: ipvs.DRoute, Weight: 1, Upper: 5, Lower: 5},
		{Forward: ipvs.Tunnel, Weight: 1},
		{Forward: ipvs.Tunnel, Weight: 1, Tunnel: ipvs.TunnelOptions{Type: ipvs.GUE, Port: 6080}},
		{Forward: ipvs.Tunnel, Weight: 1, Tunnel: ipvs.TunnelOptions{Type: ipvs.GUE, Port: 65535, Checksum: ipvs.Csum}},
		{Forward: ipvs.Tunnel, Weight: 1, Tunnel: ipvs.TunnelOptions{Type: ipvs.GUE, Port: 1, Checksum: ipvs.RemCsum}},
		{Forward: ipvs.Tunnel, Weight: 1, Tunnel: ipvs.TunnelOptions{Type: ipvs.GRE}},
		{Forward: ipvs.Tunnel, Weight: 1, Tunnel: ipvs.TunnelOptions{Type: ipvs.GRE, Checksum: ipvs.Csum}},
	}
	for i, d := range variants {
		if ipv4 {
			add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 1, byte(i + 1)}), 80), d)
		}
		if ipv6 {
			v6 := netip.MustParseAddr("2001:db8:1::").As16()
			v6[15] = byte(i + 1)
			add(netip.AddrPortFrom(netip.AddrFrom16(v6), 80), d)
		}
	}
	if ipv4 {
		add(netip.MustParseAddrPort("10.9.1.1:8080"), ipvs.Destination{Forward: ipvs.Masq, Weight: 1})
		add(netip.MustParseAddrPort("127.0.0.1:80"), ipvs.Destination{Forward: ipvs.Masq, Weight: 1})
	}
	return destinations
}
