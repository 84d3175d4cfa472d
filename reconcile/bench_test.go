package reconcile

import (
	"net/netip"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// BenchmarkPlan compares a kernel that is as wanted: 1,000 services with 10
// destinations each, named.
func BenchmarkPlan(b *testing.B) {
	var services []ipvs.Service
	owned := map[ipvs.ServiceKey]bool{}
	for i := range 1000 {
		addr := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		s := ipvs.Service{Key: ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(addr, 80)), Name: "web", Scheduler: "rr"}
		for j := range 10 {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(10 + j), byte(i >> 8), byte(i)}), 80)
			s.Destinations = append(s.Destinations, ipvs.Destination{Addr: at, Name: "s", Forward: ipvs.DRoute, Weight: 1})
		}
		owned[s.Key] = true
		services = append(services, s)
	}
	want := ipvs.TableOf(services...)
	have := want.Bare()
	b.ReportAllocs()
	for b.Loop() {
		if p := MakePlan(have, want, owned, false); len(p.Changes) > 0 {
			b.Fatal(p.Changes)
		}
	}
}
