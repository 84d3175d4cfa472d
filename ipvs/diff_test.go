package ipvs_test

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// checkLaw is the law that ties Diff and Apply together, with the order that keeps
// live connections alive.
func checkLaw(t *rapid.T) {
	have, want := drawTable(t), drawTable(t)
	before, _ := json.Marshal(have)
	changes := ipvs.Diff(have, want)
	got, err := have.Apply(changes...)
	if err != nil {
		t.Fatalf("Apply(Diff(have, want)): %v\nchanges: %v", err, changes)
	}
	if !got.Equal(want) {
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		t.Fatalf("have.Apply(Diff(have, want)) != want\n got %s\nwant %s", g, w)
	}
	if again := ipvs.Diff(got, want); len(again) != 0 {
		t.Fatalf("Diff of equal tables: %v", again)
	}
	if after, _ := json.Marshal(have); string(after) != string(before) {
		t.Fatalf("Apply changed the table it was applied to:\nbefore %s\n after %s", before, after)
	}
	lastAdd := lastIndex(changes, ipvs.AddService)
	firstDelete := slices.IndexFunc(changes, func(c ipvs.Change) bool { return c.Op == ipvs.DeleteService })
	if firstDelete >= 0 && lastAdd > firstDelete {
		t.Fatalf("a service is deleted before another is added: %v", changes)
	}
}

func lastIndex(changes []ipvs.Change, op ipvs.Op) int {
	for i, c := range slices.Backward(changes) {
		if c.Op == op {
			return i
		}
	}
	return -1
}

func TestDiffApplyLaw(t *testing.T) { rapid.Check(t, checkLaw) }

func FuzzDiffApplyLaw(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkLaw)) }

func TestDiffEditsInPlace(t *testing.T) {
	have := table(t, `{"services":[{"service":"tcp://10.9.0.1:80","scheduler":"rr","destinations":[{"address":"10.9.1.1:80","weight":1},{"address":"10.9.1.2:80"}]}]}`)
	want := table(t, `{"services":[{"service":"tcp://10.9.0.1:80","scheduler":"wrr","destinations":[{"address":"10.9.1.1:80","weight":9},{"address":"10.9.1.3:80"}]}]}`)
	var got []string
	for _, c := range ipvs.Diff(have, want) {
		got = append(got, c.String())
	}
	expect := []string{
		"set-service tcp://10.9.0.1:80",
		"set-destination tcp://10.9.0.1:80 10.9.1.1:80",
		"add-destination tcp://10.9.0.1:80 10.9.1.3:80",
		"delete-destination tcp://10.9.0.1:80 10.9.1.2:80",
	}
	if !slices.Equal(got, expect) {
		t.Errorf("changes:\n got %q\nwant %q", got, expect)
	}
}

func TestDiffTurnsSyncOffFirstAndOnLast(t *testing.T) {
	mixed := table(t, `{"sync":{"enabled":false},"services":[{"service":"tcp://10.9.0.1:80","scheduler":"rr","destinations":[{"address":"[2001:db8::1]:80","forward":"tunnel"}]}]}`)
	if changes := ipvs.Diff(ipvs.Table{}, mixed); changes[0].Op != ipvs.SetSync {
		t.Errorf("sync is not turned off before the mixed destination comes: %v", changes)
	}
	if changes := ipvs.Diff(mixed, ipvs.Table{}); changes[len(changes)-1].Op != ipvs.SetSync {
		t.Errorf("sync is not turned on after the mixed destination went: %v", changes)
	}
}

func table(t *testing.T, text string) ipvs.Table {
	t.Helper()
	var tbl ipvs.Table
	if err := json.Unmarshal([]byte(text), &tbl); err != nil {
		t.Fatalf("table: %v", err)
	}
	return tbl
}

// TestUnsharedAfterManyChanges compares tables with those that were made of them, by more
// changes than a table remembers too.
func TestUnsharedAfterManyChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tables := []ipvs.Table{{}}
		for range rapid.IntRange(1, 150).Draw(t, "changes") {
			table := tables[len(tables)-1]
			key := ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(netip.MustParseAddr("10.9.0.1"), uint16(rapid.IntRange(1, 20).Draw(t, "port"))))
			s := ipvs.Service{Key: key, Scheduler: rapid.SampledFrom([]string{"rr", "wrr"}).Draw(t, "scheduler")}
			change := ipvs.Change{Op: ipvs.AddService, Key: key, Service: &s}
			if table.Service(key) != nil {
				change.Op = ipvs.SetService
				if rapid.Bool().Draw(t, "delete") {
					change = ipvs.Change{Op: ipvs.DeleteService, Key: key}
				}
			}
			next, err := table.Apply(change)
			if err != nil {
				t.Fatal(err)
			}
			if rapid.IntRange(0, 50).Draw(t, "replace") == 0 {
				next = next.Replace(ipvs.TableOf(s))
			}
			tables = append(tables, next)
		}
		from := tables[rapid.IntRange(0, len(tables)-1).Draw(t, "from")]
		to := tables[rapid.IntRange(0, len(tables)-1).Draw(t, "to")]
		want := map[ipvs.ServiceKey]bool{}
		for _, table := range []ipvs.Table{from, to} {
			for s := range table.Services() {
				want[s.Key] = from.Service(s.Key) != to.Service(s.Key)
			}
		}
		maps.DeleteFunc(want, func(_ ipvs.ServiceKey, differs bool) bool { return !differs })
		var last *ipvs.ServiceKey
		for a, b := range ipvs.Unshared(from, to) {
			key := cmp.Or(a, b).Key
			if a != from.Service(key) || b != to.Service(key) || !want[key] {
				t.Fatalf("%v is the same in both, or was there already", key)
			}
			if last != nil && last.Compare(key) >= 0 {
				t.Fatalf("%v comes after %v", key, *last)
			}
			last = &key
			delete(want, key)
		}
		if len(want) > 0 {
			t.Fatalf("Unshared does not yield %v", want)
		}
	})
}

func TestSameBare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, other := drawService(t, drawKey(t)).Normalize(), drawService(t, drawKey(t))
		b := a.Bare()
		first := func(edit func(d *ipvs.Destination)) {
			if len(b.Destinations) > 0 {
				edit(&b.Destinations[0])
			}
		}
		edits := []func(){
			func() {},
			func() { b.Name, b.Comment, b.NoVIP = "db", "x", !b.NoVIP },
			func() { first(func(d *ipvs.Destination) { d.Name, d.Comment = "s1", "x" }) },
			func() { first(func(d *ipvs.Destination) { d.Weight++ }) },
			func() { first(func(d *ipvs.Destination) { d.Tunnel.Port++ }) },
			func() { b.Destinations = other.Destinations },
			func() { b.Key = other.Key },
			func() { b.Scheduler = other.Scheduler },
			func() { b.Persistence = other.Persistence },
			func() { b.Flags = other.Flags },
		}
		edits[rapid.IntRange(0, len(edits)-1).Draw(t, "edit")]()
		b = b.Normalize()
		x, y := a.Bare(), b.Bare()
		if got, want := a.SameBare(&b), x.Equal(&y); got != want {
			t.Fatalf("%v, want %v: %+v and %+v", got, want, a, b)
		}
	})
}
