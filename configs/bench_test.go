package configs

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// benchDocument returns services of ten destinations.
func benchDocument(destinations int) ipvs.Document {
	var doc ipvs.Document
	for i := range destinations / 10 {
		s := ipvs.Service{Scheduler: "wrr", Key: ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 80))}
		for d := range 10 {
			s.Destinations = append(s.Destinations, ipvs.Destination{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(i), byte(d)}), 8080), Forward: ipvs.Masq, Weight: 1})
		}
		doc.Services = append(doc.Services, s)
	}
	return doc
}

// BenchmarkTableFile measures what apply reads and what get writes.
func BenchmarkTableFile(b *testing.B) {
	for _, format := range []string{"yaml", "json"} {
		for _, n := range []int{1000, 10_000, 100_000} {
			doc := benchDocument(n)
			data, err := FormatTable(doc, format)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("read/%s/destinations=%d", format, n), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := ParseTable(data, "table"); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(fmt.Sprintf("write/%s/destinations=%d", format, n), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := FormatTable(doc, format); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
