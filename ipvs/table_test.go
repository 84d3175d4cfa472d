package ipvs_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// drawChange draws a change that may be refused: by what is there, by its own
// fields, or by the rules about all services.
func drawChange(t *rapid.T) ipvs.Change {
	key := drawKey(t)
	settings := drawSettings(t, key)
	d := drawDestination(t, settings)
	if rapid.IntRange(0, 3).Draw(t, "mixed") == 0 {
		d.Forward, d.Tunnel = ipvs.Tunnel, ipvs.TunnelOptions{}
		host := netip.MustParseAddr("2001:db8:2::1")
		if key.Family == ipvs.IPv6 {
			host = netip.MustParseAddr("10.9.2.1")
		}
		d.Addr = netip.AddrPortFrom(host, d.Addr.Port())
	}
	return rapid.SampledFrom([]ipvs.Change{
		{Op: ipvs.AddService, Key: key, Service: &settings},
		{Op: ipvs.SetService, Key: key, Service: &settings},
		{Op: ipvs.DeleteService, Key: key},
		{Op: ipvs.AddDestination, Key: key, Destination: &d},
		{Op: ipvs.AddDestination, Key: key, Destination: &d},
		{Op: ipvs.SetDestination, Key: key, Destination: &d},
		{Op: ipvs.DeleteDestination, Key: key, Address: d.Addr},
		{Op: ipvs.SetSync, Sync: &ipvs.Sync{Disabled: rapid.Bool().Draw(t, "disabled")}},
		{Op: ipvs.SetTimeouts, Timeouts: &ipvs.Timeouts{}},
		{Op: ipvs.SetVIPs, VIPs: drawVIPs(t)},
	}).Draw(t, "change")
}

// drawNothing draws a change that sets what is there to what it is.
func drawNothing(t *rapid.T, table ipvs.Table) ipvs.Change {
	s := rapid.SampledFrom(slices.Collect(table.Services())).Draw(t, "service")
	if len(s.Destinations) > 0 && rapid.Bool().Draw(t, "destination") {
		return ipvs.Change{Op: ipvs.SetDestination, Key: s.Key, Destination: &s.Destinations[0]}
	}
	settings := *s
	settings.Destinations = nil
	return ipvs.Change{Op: ipvs.SetService, Key: s.Key, Service: &settings}
}

// applyWhole is Apply without anything kept: it edits the document, and has all of it
// checked.
func applyWhole(t ipvs.Table, changes []ipvs.Change) (ipvs.Table, error) {
	doc := t.Document()
	doc.Services = slices.Clone(doc.Services)
	refused := errors.New("refused")
	for _, c := range changes {
		at := slices.IndexFunc(doc.Services, func(s ipvs.Service) bool { return s.Key == c.Key })
		addr, aboutDestination := c.Target()
		var s ipvs.Service
		to := -1
		if at >= 0 {
			s = doc.Services[at]
			s.Destinations = slices.Clone(s.Destinations)
			to = slices.IndexFunc(s.Destinations, func(d ipvs.Destination) bool { return d.Addr == addr })
		}
		switch {
		case c.Op == ipvs.SetSync:
			doc.Sync = c.Sync
			continue
		case c.Op == ipvs.SetTimeouts:
			doc.Timeouts = c.Timeouts
			continue
		case c.Op == ipvs.SetVIPs:
			doc.VIPs = c.VIPs
			continue
		case (c.Op == ipvs.AddService) != (at < 0), aboutDestination && (c.Op == ipvs.AddDestination) != (to < 0):
			return ipvs.Table{}, refused
		}
		switch c.Op {
		case ipvs.AddService:
			doc.Services = append(doc.Services, *c.Service)
			at, s = len(doc.Services)-1, *c.Service
		case ipvs.SetService:
			destinations := s.Destinations
			s = *c.Service
			s.Destinations = destinations
		case ipvs.DeleteService:
			doc.Services = slices.Delete(doc.Services, at, at+1)
			continue
		case ipvs.AddDestination:
			s.Destinations = append(s.Destinations, *c.Destination)
		case ipvs.SetDestination:
			s.Destinations[to] = *c.Destination
		case ipvs.DeleteDestination:
			s.Destinations = slices.Delete(s.Destinations, to, to+1)
		}
		doc.Services[at] = s
		n := s.Normalize()
		if err := n.Validate(); err != nil {
			return ipvs.Table{}, err
		}
	}
	return doc.Table()
}

// TestApplyChecksLikeTheWhole compares what is kept from change to change with what
// all services say.
func TestApplyChecksLikeTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := drawTable(t)
		for range rapid.IntRange(1, 12).Draw(t, "writes") {
			changes := rapid.SliceOfN(rapid.Custom(drawChange), 1, 4).Draw(t, "changes")
			if table.Len() > 0 && rapid.IntRange(0, 3).Draw(t, "nothing") == 0 {
				changes = []ipvs.Change{drawNothing(t, table)}
			}
			next, err := table.Apply(changes...)
			want, wantErr := applyWhole(table, changes)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%v: Apply says %v, a check of the whole table %v", changes, err, wantErr)
			}
			if err != nil {
				continue
			}
			if !next.Equal(want) || !want.Equal(next) {
				t.Fatalf("%v: got %v, want %v", changes, next.Document(), want.Document())
			}
			checkSuccessor(t, table, next)
			checkSuccessor(t, table, table.Replace(want))
			table = next
		}
	})
}

// checkSuccessor checks what two tables say of each other, of which the second was
// made from the first.
func checkSuccessor(t *rapid.T, from, to ipvs.Table) {
	if err := ipvs.CheckCounts(to); err != nil {
		t.Fatal(err)
	}
	if from.Same(to) != from.Equal(to) {
		t.Fatalf("the tables are the same: %v, and equal: %v", from.Same(to), from.Equal(to))
	}
	if from.SameVIPs(to) && !slices.Equal(from.VIPs(), to.VIPs()) {
		t.Fatalf("the virtual addresses are said to be the same: %v, %v", from.VIPs(), to.VIPs())
	}
	unshared := 0
	for a, b := range ipvs.Unshared(from, to) {
		unshared++
		if a != nil && b != nil && (a.Key != b.Key || a.Equal(b)) {
			t.Fatalf("unshared, but equal or not a pair: %v and %v", a, b)
		}
	}
	for s := range to.Services() {
		if from.Service(s.Key) != s {
			unshared--
		}
	}
	for s := range from.Services() {
		if to.Service(s.Key) == nil {
			unshared--
		}
	}
	if unshared != 0 {
		t.Fatalf("Unshared yields %d services more than differ", unshared)
	}
}

func TestServicesAreInTheOrderOfKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) ipvs.ServiceKey {
			addr := rapid.SampledFrom([]string{"0.0.0.0", "10.9.0.1", "10.9.1.0", "255.0.0.1", "::", "::1", "::ffff:10.9.0.1", "2001:db8::1", "fe80::1%a", "fe80::1%ab", "fe80::1"}).Draw(t, name)
			k := ipvs.ServiceAt(ipvs.Protocol(rapid.Uint16().Draw(t, "protocol")), netip.AddrPortFrom(netip.MustParseAddr(addr), rapid.Uint16().Draw(t, "port")))
			if rapid.Bool().Draw(t, "marked") {
				k = ipvs.ServiceMarked(rapid.SampledFrom([]ipvs.Family{ipvs.IPv4, ipvs.IPv6}).Draw(t, "family"), rapid.Uint32().Draw(t, "mark"))
			}
			return k
		}
		a, b := draw("a"), draw("b")
		if have, want := bytes.Compare(ipvs.Sortable(a), ipvs.Sortable(b)), a.Compare(b); have != cmp.Compare(want, 0) {
			t.Fatalf("%v and %v: the table's order is %d, that of the keys %d", a, b, have, want)
		}
	})
}

// TestReadersBesideWriters is for the race detector.
func TestReadersBesideWriters(t *testing.T) {
	table, err := benchDocument(1000).Table()
	if err != nil {
		t.Fatal(err)
	}
	first, _ := json.Marshal(table)
	var readers sync.WaitGroup
	for i := range 200 {
		next, err := table.Apply(ipvs.Change{Op: ipvs.SetDestination, Key: benchKey(i % 100), Destination: benchDestination(3, int32(2+i))})
		if err != nil {
			t.Fatal(err)
		}
		before := table
		readers.Go(func() {
			if changes := ipvs.Diff(before, next); len(changes) != 1 {
				t.Errorf("%d changes, want 1", len(changes))
			}
			if _, err := before.Apply(ipvs.Change{Op: ipvs.DeleteService, Key: benchKey(7)}); err != nil {
				t.Error(err)
			}
		})
		table = next
	}
	readers.Wait()
	if again, _ := benchDocument(1000).Table(); true {
		if text, _ := json.Marshal(again); !bytes.Equal(text, first) {
			t.Error("the first table has changed")
		}
	}
}

func TestLimits(t *testing.T) {
	full := benchDocument(ipvs.MaxDestinations)
	table, err := full.Table()
	if err != nil {
		t.Fatalf("a table of the largest size: %v", err)
	}
	key := ipvs.ServiceAt(ipvs.UDP, netip.MustParseAddrPort("10.9.0.1:53"))
	one := ipvs.Document{Services: []ipvs.Service{{Key: benchKey(0), Scheduler: "rr"}}}
	for d := range ipvs.MaxServiceDestinations {
		one.Services[0].Destinations = append(one.Services[0].Destinations, *benchDestination(d, 1))
	}
	wide, err := one.Table()
	if err != nil {
		t.Fatalf("a service of the largest size: %v", err)
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	vips := ipvs.VIPs{Listed: true}
	for i := range ipvs.MaxVIPs + 1 {
		vips.List = append(vips.List, ipvs.VIP{Prefix: netip.PrefixFrom(benchKey(i).Addr, 32)})
	}
	apply := func(t ipvs.Table, c ipvs.Change) func() (ipvs.Table, error) {
		return func() (ipvs.Table, error) { return t.Apply(c) }
	}
	whole := func(doc ipvs.Document) func() (ipvs.Table, error) { return doc.Table }
	add := func(s ipvs.Service) ipvs.Change { return ipvs.Change{Op: ipvs.AddService, Key: s.Key, Service: &s} }
	for _, tt := range []struct {
		name string
		make func() (ipvs.Table, error)
		says string
	}{
		{"services", whole(ipvs.Document{Services: append(full.Services, ipvs.Service{Key: key})}), "20001 services, the limit is 20000"},
		{"services by a change", apply(table, add(ipvs.Service{Key: key, Scheduler: "rr"})), "20001 services, the limit is 20000"},
		{"destinations", func() (ipvs.Table, error) {
			doc := ipvs.Document{Services: slices.Clone(full.Services)}
			doc.Services[0].Destinations = append(slices.Clone(doc.Services[0].Destinations), *benchDestination(20, 1))
			return doc.Table()
		}, "200001 destinations, the limit is 200000"},
		{"destinations by a change", apply(table, ipvs.Change{Op: ipvs.AddDestination, Key: benchKey(1), Destination: benchDestination(20, 1)}), "200001 destinations, the limit is 200000"},
		{"destinations of a service", func() (ipvs.Table, error) {
			doc := ipvs.Document{Services: slices.Clone(one.Services)}
			doc.Services[0].Destinations = append(slices.Clone(doc.Services[0].Destinations), *benchDestination(ipvs.MaxServiceDestinations, 1))
			return doc.Table()
		}, "services[0].destinations: 10001 destinations, the limit for one service is 10000"},
		{"destinations of a service by a change", apply(wide, ipvs.Change{Op: ipvs.AddDestination, Key: benchKey(0), Destination: benchDestination(ipvs.MaxServiceDestinations, 1)}), "has 10000 destinations, which is the limit"},
		{"virtual addresses", whole(ipvs.Document{VIPs: &vips}), "1025 addresses, the limit is 1024"},
		{"virtual addresses by a change", apply(wide, ipvs.Change{Op: ipvs.SetVIPs, VIPs: &vips}), "1025 addresses, the limit is 1024"},
		{"a name", apply(wide, add(ipvs.Service{Key: key, Scheduler: "rr", Name: long(ipvs.MaxName + 1)})), "name: has 65 bytes, the limit is 64"},
		{"a comment", apply(wide, add(ipvs.Service{Key: key, Scheduler: "rr", Comment: long(ipvs.MaxComment + 1)})), "comment: has 257 bytes, the limit is 256"},
		{"a network", whole(ipvs.Document{VIPs: &ipvs.VIPs{Listed: true, List: []ipvs.VIP{{Prefix: netip.MustParsePrefix("10.9.0.1/32"), Network: long(ipvs.MaxNetwork + 1)}}}}), "16 characters, not from 1 to 15"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.make()
			if !errors.Is(err, ipvs.ErrInvalid) || !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("error %v, want one that says %q", err, tt.says)
			}
			if !got.Equal(ipvs.Table{}) {
				t.Error("there is a table beside the error")
			}
		})
	}
}
