package reconcile

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

func openTestRecord(t *testing.T, dir string) *record {
	t.Helper()
	r, warning, err := openRecord(dir)
	if err != nil || warning != nil {
		t.Fatalf("error %v, warning %v", err, warning)
	}
	t.Cleanup(r.close)
	return r
}

func keys(from, to int) []ipvs.ServiceKey {
	var list []ipvs.ServiceKey
	for n := from; n < to; n++ {
		list = append(list, testKey(n))
	}
	return list
}

func ownedBy(r *record) []string {
	var list []string
	for k := range r.owned {
		list = append(list, k.String())
	}
	slices.Sort(list)
	return list
}

func TestRecordComesBack(t *testing.T) {
	dir := t.TempDir()
	r := openTestRecord(t, dir)
	starts := syncd.Starts{ipvs.Backup: {Index: 2, Wanted: ipvs.Daemon{State: ipvs.Backup, Interface: "eth0", SyncID: 7}}}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		back := openTestRecord(t, dir)
		if diff := cmp.Diff(ownedBy(r), ownedBy(back)); diff != "" {
			t.Fatalf("owned (-want +got):\n%s", diff)
		}
		if !maps.Equal(r.starts, back.starts) {
			t.Fatalf("daemons %+v, want %+v", back.starts, r.starts)
		}
	}
	check(r.claim(keys(1, 4)))
	check(r.claim(keys(2, 6)))
	check(r.saveStarts(starts))
	check(r.release(keys(1, 3)))
	check(r.claim(keys(1, 200)))
	check(r.release(keys(5, 300)))
	// Claiming and releasing for ever does not grow the file for ever.
	for range 2000 {
		if err := r.claim(keys(50, 52)); err != nil {
			t.Fatal(err)
		}
		if err := r.release(keys(50, 52)); err != nil {
			t.Fatal(err)
		}
	}
	check(nil)
	if info, err := os.Stat(r.path); err != nil || info.Size() > 64<<10 {
		t.Errorf("the record has %d bytes, error %v", info.Size(), err)
	}
	if openTestRecord(t, dir).claim(keys(1, 2)) != nil {
		t.Errorf("a record that was read cannot be written")
	}
}

// TestRecordCutOff crashes in the middle of an append: whole lines count.
func TestRecordCutOff(t *testing.T) {
	dir := t.TempDir()
	r := openTestRecord(t, dir)
	if err := r.claim(keys(1, 2)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.claim(keys(2, 4)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	for n := len(before); n < len(whole); n++ {
		for _, tail := range []string{"", "\x00\x00\x00\x00", "\x00\x00\n\x00\n"} {
			if err := os.WriteFile(r.path, append(slices.Clone(whole[:n]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			back := openTestRecord(t, dir)
			if !back.owned[testKey(1)] || back.owned[testKey(3)] {
				t.Fatalf("cut off at %d: %v", n, ownedBy(back))
			}
			// Writing goes on behind whole lines only.
			if err := back.claim(keys(5, 6)); err != nil {
				t.Fatal(err)
			}
			if again := openTestRecord(t, dir); !again.owned[testKey(1)] || !again.owned[testKey(5)] {
				t.Fatalf("cut off at %d, written to and read: %v", n, ownedBy(again))
			}
		}
	}
}

// TestRecordDamaged flips each byte: never does a service count as ours that was
// not recorded, and the damage is reported unless it looks like an append cut off.
func TestRecordDamaged(t *testing.T) {
	source := openTestRecord(t, t.TempDir())
	if err := source.claim(keys(1, 4)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(source.path)
	if err != nil {
		t.Fatal(err)
	}
	warnings := 0
	for i := range good {
		dir := t.TempDir()
		bad := slices.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(filepath.Join(dir, recordName), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		r, warning, err := openRecord(dir)
		if err != nil {
			continue // the head says another format
		}
		for k := range r.owned {
			if !source.owned[k] {
				t.Fatalf("byte %d: %s was never recorded", i, k)
			}
		}
		if warning == nil && len(r.owned) < 1 { // a lost line end joins the last two
			t.Fatalf("byte %d: only %v, without a warning", i, ownedBy(r))
		}
		if warning != nil {
			warnings++
			if len(r.owned) != 0 {
				t.Fatalf("byte %d: damaged, yet %v", i, ownedBy(r))
			}
			if kept, err := os.ReadFile(filepath.Join(dir, recordName+".damaged")); err != nil || !slices.Equal(kept, bad) {
				t.Fatalf("byte %d: the damaged record is not kept: %v", i, err)
			}
		}
	}
	if warnings == 0 {
		t.Errorf("no damage was reported")
	}
}

func TestRecordOfANewerReleaseIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, recordName), []byte("ipvs-ha ownership 2\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openRecord(dir); err == nil {
		t.Errorf("it was opened")
	}
}
