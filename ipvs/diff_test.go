package ipvs_test

import (
	"encoding/json"
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
