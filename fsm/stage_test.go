package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// smallest is about the least limit that Entries can work with, so that small tables
// have many parts.
const smallest = maxEnvelope + 500

func entries(t interface{ Fatal(...any) }, c Command, limit int) [][]byte {
	all, err := c.entries(limit)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// largeDocument has services that fit into one small part together, and one that
// fits into none.
func largeDocument(weight int32) *ipvs.Document {
	doc := &ipvs.Document{Timeouts: &ipvs.Timeouts{TCP: 900}, VIPs: &ipvs.VIPs{Listed: true}}
	for n, destinations := range []int{1, 0, 12, 2, 3, 7} {
		s := ipvs.Service{Key: key(n), Scheduler: "wrr"}
		for d := range destinations {
			s.Destinations = append(s.Destinations, *destination(d, weight))
		}
		doc.Services = append(doc.Services, s)
	}
	return doc
}

func TestGoldenStage(t *testing.T) {
	revision := uint64(41)
	all := entries(t, Command{ID: "3f20", By: "root", IfRevision: &revision, Replace: largeDocument(1)}, smallest)
	if len(all) < 4 {
		t.Fatalf("%d entries, want some parts and a commit", len(all))
	}
	checkGolden(t, "command-v1-part.json", append(slices.Clone(all[0]), '\n'))
	checkGolden(t, "command-v1-part-continues.json", append(slices.Clone(all[2]), '\n'))
	checkGolden(t, "command-v1-commit.json", append(slices.Clone(all[len(all)-1]), '\n'))
	m := New(nil)
	apply(t, m, 3, encode(t, edit("first", addService(1, "rr"))))
	for i, entry := range all[:2] {
		apply(t, m, uint64(4+i), entry)
	}
	var written bytes.Buffer
	if err := writeSnapshot(&written, m.State()); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "snapshot-v1-stage.jsonl", written.Bytes())
	for _, entry := range all {
		c, err := DecodeCommand(entry)
		if err != nil {
			t.Fatal(err)
		}
		if again := encode(t, c); !bytes.Equal(again, entry) {
			t.Errorf("decoded and encoded again:\n%s\nwant\n%s", again, entry)
		}
	}
}

func TestEntriesFit(t *testing.T) {
	if all := entries(t, Command{ID: "a", Replace: largeDocument(1)}, MaxCommandSize); len(all) != 1 {
		t.Errorf("a small table has %d entries", len(all))
	}
	one := ipvs.Service{Key: key(1), Scheduler: "wrr"}
	for d := range 3000 {
		d := *destination(d, 1)
		d.Comment = strings.Repeat("<", ipvs.MaxComment) // six bytes each
		one.Destinations = append(one.Destinations, d)
	}
	all := entries(t, Command{ID: "a", Replace: &ipvs.Document{Services: []ipvs.Service{one}}}, MaxCommandSize)
	m := New(nil)
	for i, entry := range all {
		if len(entry) > MaxCommandSize {
			t.Errorf("entry %d has %d bytes", i, len(entry))
		}
		if i < len(all)-2 && len(entry) < MaxCommandSize*9/10 {
			t.Errorf("entry %d has only %d bytes", i, len(entry))
		}
		if r := apply(t, m, uint64(i+1), entry); r.Rejected != nil {
			t.Fatalf("entry %d of %d: %v", i, len(all), r.Rejected)
		}
	}
	if s := m.State().Table().Service(key(1)); s == nil || !s.Equal(&one) {
		t.Errorf("the service has not come as it was")
	}
	if _, err := (Command{ID: "a", Replace: &ipvs.Document{Services: []ipvs.Service{one}}}).entries(4 << 10); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "67108864 and 1024") {
		t.Errorf("a table in too many parts: %v", err)
	}
	var changes []ipvs.Change
	for d := range 2000 {
		changes = append(changes, ipvs.Change{Op: ipvs.AddDestination, Key: key(1), Destination: &one.Destinations[d]})
	}
	if _, err := edit("a", changes...).Entries(); !errors.Is(err, ErrTooLarge) || !errors.Is(err, ipvs.ErrInvalid) || !strings.Contains(err.Error(), "262144") {
		t.Errorf("too many changes: %v", err)
	}
}

// client proposes the entries of one large write.
type client struct {
	entries [][]byte
	table   ipvs.Table
	next    int
	done    bool
}

// TestStagedTables has several clients at once, whose entries get lost, come twice
// and push one another out, on three replicas that restore one another's snapshots.
// The table is at each moment one that somebody wanted, whole.
func TestStagedTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := []*Machine{New(nil), New(nil), New(nil)}
		var clients []*client
		for i := range rapid.IntRange(1, 6).Draw(t, "clients") {
			doc := largeDocument(int32(i + 1))
			doc.Services = doc.Services[:rapid.IntRange(3, 6).Draw(t, "services")]
			table, err := doc.Table()
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, &client{entries: entries(t, Command{ID: fmt.Sprint("w", i), Replace: doc}, smallest), table: table})
		}
		index, want := uint64(0), ipvs.Table{}
		propose := func(c *client, at int) Result {
			index += 1 + rapid.SampledFrom([]uint64{0, 0, 0, 0, 0, 3, stageLife}).Draw(t, "gap")
			log := &raft.Log{Type: raft.LogCommand, Index: index, Data: c.entries[at]}
			var answers [][]byte
			for _, m := range replicas {
				answers = append(answers, m.Apply(log).([]byte))
			}
			if !bytes.Equal(answers[0], answers[1]) || !bytes.Equal(answers[0], answers[2]) {
				t.Fatalf("the answers differ: %s", bytes.Join(answers, []byte("; ")))
			}
			r, err := DecodeResult(answers[0])
			if err != nil {
				t.Fatal(err)
			}
			if at == len(c.entries)-1 && r.Rejected == nil && !r.Repeated {
				if c.done {
					t.Fatal("a write was made twice")
				}
				c.done, want = true, c.table
			}
			if r.Rejected != nil && r.Rejected.Code != NotStaged {
				t.Fatalf("entry %d: %v", at, r.Rejected)
			}
			if have := replicas[0].State().Table(); !have.Equal(want) {
				t.Fatalf("the table is %v, want %v", have.Document(), want.Document())
			}
			return r
		}
		goOn := func(c *client) {
			r := propose(c, c.next)
			switch {
			case r.Rejected != nil || c.next < len(c.entries)-1:
				c.next = r.Staged
			case !c.done:
				t.Fatalf("the commit says %+v", r)
			}
		}
		old := map[[32]byte]State{} // a snapshot may be written while the log goes on
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			c := rapid.SampledFrom(clients).Draw(t, "client")
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0: // an answer was lost, or a message of long ago arrives
				propose(c, rapid.IntRange(0, len(c.entries)-1).Draw(t, "entry"))
			case 1:
				from, to := rapid.IntRange(0, 2).Draw(t, "from"), rapid.IntRange(0, 2).Draw(t, "to")
				copyState(t, replicas[from], replicas[to])
			case 2, 3:
				old[replicas[0].State().Hash()] = replicas[0].State()
			default:
				goOn(c)
			}
			if n := len(replicas[0].State().stages); n > maxStages {
				t.Fatalf("%d stages", n)
			}
		}
		for _, c := range clients {
			for tries := 0; !c.done; tries++ {
				if tries > 200*len(c.entries) {
					t.Fatal("a client alone does not come to its end")
				}
				goOn(c)
			}
		}
		for i, m := range replicas {
			if m.State().Hash() != replicas[0].State().Hash() {
				t.Errorf("replica %d differs", i)
			}
		}
		for hash, s := range old {
			if s.Hash() != hash {
				t.Error("later entries have changed an earlier state")
			}
		}
	})
}

func TestStages(t *testing.T) {
	stale := uint64(1)
	all := entries(t, Command{ID: "a", Replace: largeDocument(1)}, smallest)
	last := len(all) - 1
	other := entries(t, Command{ID: "a", Replace: largeDocument(2)}, smallest)
	conditional := entries(t, Command{ID: "a", IfRevision: &stale, Replace: largeDocument(1)}, smallest)
	invalid := largeDocument(1)
	invalid.Services = append(invalid.Services, invalid.Services[0])
	duplicate := entries(t, Command{ID: "a", Replace: invalid}, smallest)
	replaced := func(entry []byte, old, new string) []byte {
		if !bytes.Contains(entry, []byte(old)) {
			t.Fatalf("%s does not contain %s", entry, old)
		}
		return bytes.Replace(entry, []byte(old), []byte(new), 1)
	}
	swapped := slices.Clone(all)
	swapped[0], swapped[1] = replaced(all[1], `"number":1`, `"number":0`), replaced(all[0], `"number":0`, `"number":1`)
	for _, tc := range []struct {
		name    string
		log     [][]byte
		code    Code // of the last
		message string
		staged  int
	}{
		{"whole", all, "", "", 0},
		{"a commit alone", all[last:], NotStaged, "not there", 0},
		{"a part is missing", slices.Concat(all[:last-1], all[last:]), NotStaged, fmt.Sprintf("%d of %d parts", last-1, last), last - 1},
		{"a gap", [][]byte{all[0], all[2]}, NotStaged, "part 2 of the table came, and 1 parts are there", 1},
		{"parts of another table", slices.Concat(other[:last], all[last:]), NotStaged, "not there", 0},
		{"parts in another order", swapped, Invalid, "not those that were announced", 0},
		{"an old revision", conditional, Conflict, "revision 0, not 1", 0},
		{"against the rules", duplicate, Invalid, "duplicate", 0},
		{"a part beyond the end", [][]byte{replaced(all[0], `"number":0`, `"number":77`)}, Invalid, "part 77 of", 0},
		{"too many parts", [][]byte{replaced(all[0], fmt.Sprintf(`"parts":%d`, last), `"parts":1025`)}, Invalid, "1025 parts, the limit is 1024", 0},
		{"no sum", [][]byte{replaced(all[0], `"sum":"`, `"sum":"x`)}, Invalid, "is not a SHA-256", 0},
		{"a part that cannot be read", [][]byte{replaced(all[0], `"scheduler"`, `"colour"`)}, Invalid, "decode part 0 of the table", 0},
		{"a part with a condition", [][]byte{replaced(all[0], `"part"`, `"if_revision":1,"part"`)}, Invalid, "its commit has", 0},
		{"both", [][]byte{replaced(all[0], `"part"`, `"changes":[{"op":"delete-service"}],"part"`)}, Invalid, "either", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := New(nil)
			var r Result
			for i, entry := range tc.log {
				if r = apply(t, m, uint64(i+1), entry); i < len(tc.log)-1 && (r.Rejected != nil || r.Staged != i+1 || r.Revision != 0) {
					t.Fatalf("entry %d: %+v", i, r)
				}
			}
			switch {
			case tc.code == "":
				if want, _ := largeDocument(1).Table(); r.Rejected != nil || r.Revision != uint64(len(tc.log)) || !m.State().Table().Equal(want) {
					t.Errorf("%+v", r)
				}
			case r.Rejected == nil || r.Rejected.Code != tc.code || !strings.Contains(r.Rejected.Message, tc.message) || r.Staged != tc.staged:
				t.Errorf("%+v, %v; want %s with %q and %d parts", r, r.Rejected, tc.code, tc.message, tc.staged)
			case m.State().Table().Len() != 0 || m.State().Revision() != 0:
				t.Error("the table has changed")
			}
			if tc.code == "" || tc.code == Conflict {
				if n := len(m.State().stages); n != 0 {
					t.Errorf("%d stages are left", n)
				}
				again := apply(t, m, 100, tc.log[0])
				if !again.Repeated || again.Staged != last || len(m.State().stages) != 0 {
					t.Errorf("a part of what is done already: %+v", again)
				}
				if end := apply(t, m, 101, tc.log[last]); !end.Repeated || end.Index != uint64(last+1) {
					t.Errorf("the commit again: %+v", end)
				}
				if tc.code == "" {
					apply(t, m, 102, other[0])
					if end := apply(t, m, 103, other[last]); end.Rejected == nil || end.Rejected.Code != IDReused {
						t.Errorf("another table with the same id: %+v", end)
					}
				}
			}
		})
	}
}

func TestStagesAreBounded(t *testing.T) {
	m := New(nil)
	index := uint64(0)
	next := func(entry []byte) Result {
		index++
		return apply(t, m, index, entry)
	}
	first := func(id string) []byte {
		return entries(t, Command{ID: id, Replace: largeDocument(1)}, smallest)[0]
	}
	there := func(want ...string) {
		t.Helper()
		var have []string
		for _, g := range m.State().stages {
			have = append(have, g.id)
		}
		if !slices.Equal(have, want) {
			t.Errorf("the stages are %v, want %v", have, want)
		}
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		next(first(id))
	}
	next(first("a")) // is used again
	next(first("e"))
	there("c", "d", "a", "e")
	index += stageLife - 2
	next([]byte("even what is no command lets time pass"))
	there("a", "e")
	next(first("a"))
	next(first("e"))

	// Parts as large as can be: the bytes count, not only the stages.
	wide := func(id string, number int) []byte {
		c, err := DecodeCommand(first(id))
		if err != nil {
			t.Fatal(err)
		}
		c.part.Parts, c.part.Number = maxParts, number
		return bytes.Replace(encode(t, c), []byte(`"services":[`), []byte(`"services":[`+strings.Repeat(" ", MaxCommandSize-1000)), 1)
	}
	next(wide("one", 0))
	there("a", "e", "one")
	grow := func(id string, to int) { // as if more had come
		s := m.State()
		s.stages = slices.Clone(s.stages)
		for i := range s.stages {
			if s.stages[i].id == id {
				s.stages[i].size = to
			}
		}
		m.publish(s)
	}
	grow("a", MaxCommandSize)
	grow("e", MaxCommandSize)
	grow("one", maxStaged-4*MaxCommandSize)
	for number, want := range [][]string{{"a", "e", "one", "two"}, {"a", "e", "one", "two"}, {"e", "one", "two"}, {"one", "two"}, {"two"}} {
		if r := next(wide("two", number)); r.Rejected != nil {
			t.Fatalf("part %d: %v", number, r.Rejected)
		}
		there(want...)
	}
	if r := next(wide("one", 1)); r.Rejected == nil || r.Rejected.Code != NotStaged || r.Staged != 0 {
		t.Errorf("a part of what was pushed out: %+v", r)
	}
	grow("two", maxStaged-MaxCommandSize/2)
	if r := next(wide("two", 5)); !errors.Is(r.Rejected, ipvs.ErrInvalid) || !strings.Contains(r.Rejected.Message, "67108864 bytes") {
		t.Errorf("more than there is room for: %v", r.Rejected)
	}
	there("two")
}

// BenchmarkStage measures a table of 100,000 destinations in parts: the dearest part,
// and the commit.
func BenchmarkStage(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 200_000} {
		all := entries(b, Command{ID: "a", Replace: benchDocument(n)}, MaxCommandSize)
		staged := New(nil)
		for i, entry := range all[:len(all)-1] {
			staged.Apply(&raft.Log{Type: raft.LogCommand, Index: uint64(i + 1), Data: entry})
		}
		b.Run(fmt.Sprintf("part/destinations=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, r := (State{}).apply(1, all[0], nil); r.Rejected != nil {
					b.Fatal(r.Rejected)
				}
			}
			b.ReportMetric(float64(len(all)), "entries")
		})
		b.Run(fmt.Sprintf("commit/destinations=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, r := staged.State().apply(1000, all[len(all)-1], nil); r.Rejected != nil {
					b.Fatal(r.Rejected)
				}
			}
		})
	}
}

func BenchmarkEntries(b *testing.B) {
	c := Command{ID: "a", Replace: benchDocument(100_000)}
	text, err := json.Marshal(c.Replace)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := c.Entries(); err != nil {
			b.Fatal(err)
		}
	}
}
