package ipvs_test

import (
	"fmt"
	"net/netip"

	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// The generators draw from few addresses, so that tables overlap and changes hit
// what is there.

func drawKey(t *rapid.T) ipvs.ServiceKey {
	n := rapid.IntRange(1, 4).Draw(t, "n")
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return ipvs.ServiceMarked(rapid.SampledFrom([]ipvs.Family{ipvs.IPv4, ipvs.IPv6}).Draw(t, "family"), uint32(n))
	case 1:
		return ipvs.ServiceAt(drawProtocol(t), netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%d]:80", n)))
	}
	return ipvs.ServiceAt(drawProtocol(t), netip.MustParseAddrPort(fmt.Sprintf("10.9.0.%d:80", n)))
}

func drawProtocol(t *rapid.T) ipvs.Protocol {
	return rapid.SampledFrom([]ipvs.Protocol{ipvs.TCP, ipvs.UDP, ipvs.SCTP}).Draw(t, "protocol")
}

func drawSettings(t *rapid.T, key ipvs.ServiceKey) ipvs.Service {
	s := ipvs.Service{
		Key:       key,
		Name:      rapid.SampledFrom([]string{"", "web"}).Draw(t, "name"),
		Scheduler: rapid.SampledFrom([]string{"rr", "wrr", "sh", "mh"}).Draw(t, "scheduler"),
		Flags:     rapid.SampledFrom([]ipvs.Flags{0, ipvs.Flag1, ipvs.Flag2 | ipvs.Flag3}).Draw(t, "flags"),
		NoVIP:     ipvs.Negated(key.FWMark == 0 && rapid.Bool().Draw(t, "no vip")),
	}
	if rapid.Bool().Draw(t, "persistent") {
		s.Persistence.Timeout = ipvs.Seconds(rapid.IntRange(1, 600).Draw(t, "timeout"))
		if key.Family == ipvs.IPv6 {
			s.Persistence.Prefix = uint8(rapid.SampledFrom([]int{0, 64, 128}).Draw(t, "prefix"))
		} else {
			s.Persistence.Netmask = rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("255.255.255.0"), netip.MustParseAddr("255.255.255.255")}).Draw(t, "netmask")
		}
	}
	return s
}

func drawDestination(t *rapid.T, s ipvs.Service) ipvs.Destination {
	n := rapid.IntRange(1, 5).Draw(t, "host")
	host := netip.MustParseAddr(fmt.Sprintf("10.9.1.%d", n))
	if s.Key.Family == ipvs.IPv6 {
		host = netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", n))
	}
	d := ipvs.Destination{
		Addr:    netip.AddrPortFrom(host, s.Key.Port),
		Forward: rapid.SampledFrom([]ipvs.Forward{ipvs.Masq, ipvs.DRoute, ipvs.Tunnel}).Draw(t, "forward"),
		Weight:  int32(rapid.IntRange(0, 3).Draw(t, "weight")),
		Upper:   int32(rapid.SampledFrom([]int{0, 100}).Draw(t, "upper")),
	}
	if d.Forward == ipvs.Tunnel && rapid.Bool().Draw(t, "gue") {
		d.Tunnel = ipvs.TunnelOptions{Type: ipvs.GUE, Port: 6080, Checksum: ipvs.Csum}
	}
	return d
}

func drawService(t *rapid.T, key ipvs.ServiceKey) ipvs.Service {
	s := drawSettings(t, key)
	seen := map[netip.AddrPort]bool{}
	for range rapid.IntRange(0, 4).Draw(t, "destinations") {
		if d := drawDestination(t, s); !seen[d.Addr] {
			seen[d.Addr] = true
			s.Destinations = append(s.Destinations, d)
		}
	}
	return s
}

func drawVIPs(t *rapid.T) *ipvs.VIPs {
	v := ipvs.VIPs{Listed: rapid.Bool().Draw(t, "listed")}
	if !v.Listed {
		return &v
	}
	for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, 5), 0, 5, rapid.ID).Draw(t, "vips") {
		host := rapid.SampledFrom([]string{"10.9.0.%d/32", "10.9.0.%d/24", "2001:db8::%d/64"}).Draw(t, "address")
		v.List = append(v.List, ipvs.VIP{
			Prefix:  netip.MustParsePrefix(fmt.Sprintf(host, n)),
			Network: rapid.SampledFrom([]string{"", "inside"}).Draw(t, "network"),
		})
	}
	return &v
}

func drawTable(t *rapid.T) ipvs.Table {
	var doc ipvs.Document
	seen := map[ipvs.ServiceKey]bool{}
	for range rapid.IntRange(0, 8).Draw(t, "services") {
		if key := drawKey(t); !seen[key] {
			seen[key] = true
			doc.Services = append(doc.Services, drawService(t, key))
		}
	}
	if rapid.Bool().Draw(t, "sync") {
		doc.Sync = &ipvs.Sync{Disabled: rapid.Bool().Draw(t, "disabled"), ID: rapid.IntRange(0, 255).Draw(t, "id")}
	}
	if rapid.Bool().Draw(t, "timeouts") {
		doc.Timeouts = &ipvs.Timeouts{TCP: ipvs.Seconds(rapid.IntRange(0, 900).Draw(t, "tcp"))}
	}
	if rapid.Bool().Draw(t, "vips") {
		doc.VIPs = drawVIPs(t)
	}
	table, err := doc.Table()
	if err != nil {
		t.Fatalf("generated an invalid table: %v", err)
	}
	return table
}
