package kernel

import (
	"net/netip"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// BenchmarkEncode appends requests to a buffer that has room.
func BenchmarkEncode(b *testing.B) {
	key := ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("10.9.0.100:80"))
	key6 := ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("[2001:db8::100]:80"))
	add := func(key ipvs.ServiceKey, destination string) Request {
		return Request{Op: OpAddDestination, Key: key, Destination: &ipvs.Destination{
			Addr: netip.MustParseAddrPort(destination), Forward: ipvs.DRoute, Weight: 1,
		}}
	}
	for _, bench := range []struct {
		name    string
		request Request
	}{
		{"add-service", Request{Op: OpAddService, Key: key, Service: &ipvs.Service{Key: key, Scheduler: "wrr"}}},
		{"add-service6", Request{Op: OpAddService, Key: key6, Service: &ipvs.Service{Key: key6, Scheduler: "wrr"}}},
		{"add-destination", add(key, "10.9.0.21:80")},
		{"add-destination6", add(key6, "[2001:db8::21]:80")},
		{"delete-destination", Request{Op: OpDeleteDestination, Key: key, Address: netip.MustParseAddrPort("10.9.0.21:80")}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			buffer := make([]byte, 0, 1024)
			for b.Loop() {
				buffer = appendRequest(buffer[:0], bench.request)
			}
		})
	}
}

// BenchmarkDecode reads messages of Linux, as Table does and as the lists with
// counters do.
func BenchmarkDecode(b *testing.B) {
	messages := map[string][]byte{}
	captured(b, func(kind string, payload []byte) { messages[kind] = payload })
	destination := func(family ipvs.Family, message string) func() error {
		inner, err := nest(messages[message], attrDest)
		if err != nil {
			b.Fatal(err)
		}
		return func() error { var r rawDestination; _, err := r.decode(family, inner); return err }
	}
	for _, bench := range []struct {
		name   string
		decode func() error
	}{
		{"service", func() error { var r rawService; _, err := r.decode(messages["service"]); return err }},
		{"destination", destination(ipvs.IPv4, "destination")},
		{"destination6", destination(ipvs.IPv6, "destination6")},
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
