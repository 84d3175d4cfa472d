package ipvs_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// sizes are the numbers of destinations of the benchmarks' tables, ten a service.
var sizes = []int{100, 1000, 10_000, 100_000}

func benchKey(n int) ipvs.ServiceKey {
	return ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}), 80))
}

func benchDestination(n int, weight int32) *ipvs.Destination {
	return &ipvs.Destination{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(n >> 8), byte(n)}), 8080), Forward: ipvs.Masq, Weight: weight}
}

func benchDocument(destinations int) ipvs.Document {
	doc := ipvs.Document{Services: make([]ipvs.Service, destinations/10)}
	for i := range doc.Services {
		s := &doc.Services[i]
		s.Key, s.Scheduler = benchKey(i), "wrr"
		for d := range 10 {
			s.Destinations = append(s.Destinations, *benchDestination(d, 1))
		}
	}
	return doc
}

func benchTable(b *testing.B, destinations int) ipvs.Table {
	b.Helper()
	table, err := benchDocument(destinations).Table()
	if err != nil {
		b.Fatal(err)
	}
	return table
}

func forSizes(b *testing.B, run func(b *testing.B, destinations int)) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("destinations=%d", n), func(b *testing.B) { run(b, n) })
	}
}

// BenchmarkApply measures one change: of a weight, and of a service that comes and
// goes.
func BenchmarkApply(b *testing.B) {
	weight := func(i int) []ipvs.Change {
		return []ipvs.Change{{Op: ipvs.SetDestination, Key: benchKey(7), Destination: benchDestination(3, int32(2+i%2))}}
	}
	service := func(i int) []ipvs.Change {
		key := ipvs.ServiceAt(ipvs.UDP, netip.MustParseAddrPort("10.9.0.5:53"))
		if i%2 == 0 {
			return []ipvs.Change{{Op: ipvs.AddService, Key: key, Service: &ipvs.Service{Key: key, Scheduler: "rr"}}}
		}
		return []ipvs.Change{{Op: ipvs.DeleteService, Key: key}}
	}
	for name, changes := range map[string]func(int) []ipvs.Change{"weight": weight, "service": service} {
		b.Run(name, func(b *testing.B) {
			forSizes(b, func(b *testing.B, n int) {
				table := benchTable(b, n)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					next, err := table.Apply(changes(i)...)
					if err != nil {
						b.Fatal(err)
					}
					table = next
				}
			})
		})
	}
}

// BenchmarkDiff measures the comparison of two tables that share all but one service.
func BenchmarkDiff(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		have := benchTable(b, n)
		want, err := have.Apply(ipvs.Change{Op: ipvs.SetDestination, Key: benchKey(7), Destination: benchDestination(3, 9)})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if len(ipvs.Diff(have, want)) != 1 {
				b.Fatal("not one change")
			}
		}
	})
}

// BenchmarkDocumentTable measures the validation of a whole table.
func BenchmarkDocumentTable(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		doc := benchDocument(n)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := doc.Table(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkJSON measures what the API, the log and snapshots read and write.
func BenchmarkJSON(b *testing.B) {
	doc := benchDocument(10_000)
	data, err := json.Marshal(doc)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := json.Marshal(doc); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			var back ipvs.Document
			if err := json.Unmarshal(data, &back); err != nil {
				b.Fatal(err)
			}
		}
	})
}
