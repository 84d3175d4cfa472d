package reconcile

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func testKey(n int) ipvs.ServiceKey {
	if n%3 == 2 {
		return ipvs.ServiceMarked(ipvs.IPv6, uint32(n))
	}
	return ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(n)}), 80))
}

func drawTable(t *rapid.T, label string) ipvs.Table {
	var services []ipvs.Service
	for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, 9), 0, 6, rapid.ID).Draw(t, label) {
		s := ipvs.Service{
			Key: testKey(n), Scheduler: rapid.SampledFrom([]string{"rr", "wrr"}).Draw(t, "scheduler"),
			Name:  rapid.SampledFrom([]string{"", "web"}).Draw(t, "name"),
			NoVIP: testKey(n).FWMark == 0 && ipvs.Negated(rapid.Bool().Draw(t, "no vip")),
		}
		for _, d := range rapid.SliceOfNDistinct(rapid.IntRange(1, 4), 0, 3, rapid.ID).Draw(t, "destinations") {
			s.Destinations = append(s.Destinations, ipvs.Destination{
				Addr:    netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(d)}), 80),
				Name:    rapid.SampledFrom([]string{"", "s1"}).Draw(t, "destination's name"),
				Forward: ipvs.Tunnel, Weight: rapid.Int32Range(0, 2).Draw(t, "weight"),
			})
		}
		services = append(services, s)
	}
	doc := ipvs.Document{Services: services, Sync: &ipvs.Sync{Disabled: true}}
	doc.VIPs = &ipvs.VIPs{Listed: rapid.Bool().Draw(t, "vips")}
	table, err := doc.Table()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, named := drawTable(t, "have").Bare(), drawTable(t, "want")
		want := named.Bare()
		owned := map[ipvs.ServiceKey]bool{}
		for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, 9), 0, 9, rapid.ID).Draw(t, "owned") {
			owned[testKey(n)] = true
		}
		exclusive := rapid.Bool().Draw(t, "exclusive")
		p := MakePlan(have, named, owned, exclusive)

		// A kernel calls the deletion of what is not there an error; we do not.
		after := have
		for _, c := range p.Changes {
			if c.Op == ipvs.DeleteService && after.Service(c.Key) == nil {
				if !owned[c.Key] {
					t.Fatalf("%s, which is neither there nor owned", c)
				}
				continue
			}
			// Families may mix: sync is off in the table that Apply checks.
			off, err := after.Apply(ipvs.Change{Op: ipvs.SetSync, Sync: &ipvs.Sync{Disabled: true}}, c)
			if err != nil {
				t.Fatalf("%s: %v", c, err)
			}
			after = off
		}
		after = after.Bare()

		for s := range have.Services() {
			foreign := !exclusive && !owned[s.Key] && want.Service(s.Key) == nil
			if foreign != slices.Contains(p.Foreign, s.Key) {
				t.Fatalf("%s is listed as foreign: %v, want %v", s.Key, !foreign, foreign)
			}
			if foreign && (after.Service(s.Key) == nil || !after.Service(s.Key).Equal(s)) {
				t.Fatalf("the foreign service %s was changed", s.Key)
			}
		}
		for s := range after.Services() {
			if !slices.Contains(p.Foreign, s.Key) && (want.Service(s.Key) == nil || !want.Service(s.Key).Equal(s)) {
				t.Fatalf("%s is not as wanted", s.Key)
			}
		}
		if after.Len() != want.Len()+len(p.Foreign) {
			t.Fatalf("%d services, want %d and %d foreign ones", after.Len(), want.Len(), len(p.Foreign))
		}
		claimed := maps.Clone(owned)
		for _, k := range p.Claim {
			claimed[k] = true
		}
		for _, c := range p.Changes {
			if c.Op == ipvs.AddService && !claimed[c.Key] {
				t.Fatalf("%s without a claim", c)
			}
			if h, w := have.Service(c.Key), want.Service(c.Key); h != nil && w != nil && h.Equal(w) {
				t.Fatalf("%s, which is as wanted", c)
			}
		}
	})
}

func TestChangesBetween(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := drawTable(t, "from")
		to := drawTable(t, "to")
		if rapid.Bool().Draw(t, "shared") { // most services are the same objects
			changes := ipvs.Diff(from, to)
			changed, err := from.Apply(changes[:min(2, len(changes))]...)
			if err != nil {
				t.Fatal(err)
			}
			to = changed
		}
		want := ipvs.Diff(from.Bare(), to.Bare())
		diff := cmp.Diff(asJSON(t, want), asJSON(t, changesBetween(from, to)))
		if diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func asJSON(t *rapid.T, changes []ipvs.Change) string {
	b, err := json.MarshalIndent(changes, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
