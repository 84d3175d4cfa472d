package kernel

import (
	"net/netip"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// BenchmarkEncode appends requests to a buffer that has room.
func BenchmarkEncode(b *testing.B) {
	key := ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("10.9.0.100:80"))
	for _, r := range []Request{
		{Op: OpAddService, Key: key, Service: &ipvs.Service{Key: key, Scheduler: "wrr"}},
		{Op: OpAddDestination, Key: key, Destination: &ipvs.Destination{Addr: netip.MustParseAddrPort("10.9.0.21:80"), Forward: ipvs.DRoute, Weight: 1}},
		{Op: OpDeleteDestination, Key: key, Address: netip.MustParseAddrPort("10.9.0.21:80")},
	} {
		b.Run(r.Op, func(b *testing.B) {
			b.ReportAllocs()
			buffer := make([]byte, 0, 1024)
			for b.Loop() {
				buffer = appendRequest(buffer[:0], r)
			}
		})
	}
}

// BenchmarkDecode reads messages of Linux, as Table does and as the lists with
// counters do.
func BenchmarkDecode(b *testing.B) {
	messages := map[string][]byte{}
	captured(b, func(kind string, payload []byte) { messages[kind] = payload })
	inner, err := nest(messages["destination"], attrDest)
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct {
		name   string
		decode func() error
	}{
		{"service", func() error { var r rawService; _, err := r.decode(messages["service"]); return err }},
		{"destination", func() error { var r rawDestination; _, err := r.decode(ipvs.IPv4, inner); return err }},
		{"service-counters", func() error { _, err := decodeService(messages["service"]); return err }},
		{"destination-counters", func() error { _, err := decodeDestination(ipvs.IPv4, messages["destination"]); return err }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bench.decode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
