package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// key returns the key of the nth service of the tests.
func key(n int) ipvs.ServiceKey {
	if n%7 == 6 {
		return ipvs.ServiceMarked(ipvs.IPv6, uint32(n))
	}
	return ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}), 80))
}

func addService(n int, scheduler string) ipvs.Change {
	return ipvs.Change{Op: ipvs.AddService, Key: key(n), Service: &ipvs.Service{Key: key(n), Scheduler: scheduler}}
}

func destination(n int, weight int32) *ipvs.Destination {
	return &ipvs.Destination{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(n >> 8), byte(n)}), 8080), Forward: ipvs.Masq, Weight: weight}
}

func edit(id string, changes ...ipvs.Change) Command { return Command{ID: id, Changes: changes} }

func encode(t testing.TB, c Command) []byte {
	t.Helper()
	data, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func apply(t testing.TB, m *Machine, index uint64, data []byte) Result {
	t.Helper()
	r, err := DecodeResult(m.Apply(&raft.Log{Type: raft.LogCommand, Index: index, Data: data}).([]byte))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkGolden compares with testdata/name.
func checkGolden(t *testing.T, name string, have []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, have, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(have)); diff != "" {
		t.Errorf("%s: format version 1 must stay as it is (-want +got):\n%s", path, diff)
	}
}

// everyKind holds a change of each kind, and fields of each kind.
func everyKind() []ipvs.Change {
	tunnel := &ipvs.Destination{
		Addr: netip.MustParseAddrPort("10.8.0.9:80"), Name: "web9", Comment: "rack 3", Forward: ipvs.Tunnel, Weight: 3, Upper: 100, Lower: 50,
		Tunnel: ipvs.TunnelOptions{Type: ipvs.GUE, Port: 6080, Checksum: ipvs.RemCsum},
	}
	service := &ipvs.Service{
		Key: key(1), Name: "web", Comment: "the shop", Scheduler: "mh", Flags: ipvs.MHPort,
		Persistence: ipvs.Persistence{Timeout: 300, Netmask: netip.MustParseAddr("255.255.255.0")},
	}
	return []ipvs.Change{
		{Op: ipvs.SetSync, Sync: &ipvs.Sync{ID: 7, Group: netip.MustParseAddr("224.0.0.90"), MaxLen: 1400}},
		{Op: ipvs.SetTimeouts, Timeouts: &ipvs.Timeouts{TCP: 900, TCPFin: 120, UDP: 301}},
		addService(1, "rr"), addService(2, "wrr"), addService(6, "lc"),
		{Op: ipvs.SetService, Key: key(1), Service: service},
		{Op: ipvs.AddDestination, Key: key(1), Destination: tunnel},
		{Op: ipvs.AddDestination, Key: key(2), Destination: destination(1, 1)},
		{Op: ipvs.SetDestination, Key: key(2), Destination: destination(1, 0)},
		{Op: ipvs.AddDestination, Key: key(2), Destination: destination(2, 1)},
		{Op: ipvs.DeleteDestination, Key: key(2), Address: destination(2, 1).Addr},
		{Op: ipvs.DeleteService, Key: key(6)},
	}
}

// virtualAddresses holds what everyKind, which is older, lacks.
func virtualAddresses() []ipvs.Change {
	without := addService(1, "rr")
	without.Service.NoVIP = true
	return []ipvs.Change{
		{Op: ipvs.SetVIPs, VIPs: &ipvs.VIPs{}},
		{Op: ipvs.SetVIPs, VIPs: &ipvs.VIPs{Listed: true, List: []ipvs.VIP{
			{Prefix: netip.MustParsePrefix("10.1.0.1/24"), Network: "inside"},
			{Prefix: netip.MustParsePrefix("2001:db8::100/128")},
		}}},
		without,
	}
}

// settings sets everything for directors, and two of them back.
func settings() []DirectorSetting {
	yes, no, low, standard := true, false, 0, DefaultPreference
	return []DirectorSetting{
		{Node: "d2", Preference: &low},
		{Node: "d1", Drained: &yes},
		{Node: "d3.example.org", Drained: &yes, Preference: &low},
		{Node: "d4", Drained: &no},
		{Node: "d5", Drained: &yes},
		{Node: "d5", Drained: &no, Preference: &standard},
	}
}

func TestGoldenCommands(t *testing.T) {
	revision := uint64(41)
	for name, c := range map[string]Command{
		"changes":   {ID: "3f1c", By: "root", IfRevision: &revision, Changes: everyKind()},
		"vips":      {ID: "3f1e", Changes: virtualAddresses()},
		"no-vips":   {ID: "3f1f", Replace: &ipvs.Document{VIPs: &ipvs.VIPs{Listed: true}, Services: []ipvs.Service{}}},
		"directors": {ID: "3f20", By: "root", Directors: settings()},
		"replace":   {ID: "3f1d", Replace: &ipvs.Document{Services: []ipvs.Service{{Key: key(1), Scheduler: "rr", Destinations: []ipvs.Destination{*destination(1, 1)}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			data := encode(t, c)
			checkGolden(t, "command-v1-"+name+".json", append(data, '\n'))
			have, err := DecodeCommand(data)
			if err != nil {
				t.Fatal(err)
			}
			// Compared in encoded form: the zero netip.Addr has no exported field.
			if diff := cmp.Diff(string(data), string(encode(t, have))); diff != "" {
				t.Errorf("decoded again (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoldenResult(t *testing.T) {
	want := Result{Revision: 41, Index: 42, Repeated: true, Rejected: &Rejection{Code: Exists, Message: "add tcp://10.9.0.1:80: the virtual service exists already"}}
	checkGolden(t, "result-v1.json", append(want.Encode(), '\n'))
	have, err := DecodeResult(want.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, have, cmp.AllowUnexported(Rejection{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !errors.Is(have.Rejected, os.ErrExist) {
		t.Errorf("a decoded rejection does not match its code's error")
	}
}

func TestGoldenSnapshot(t *testing.T) {
	for name, first := range map[string]Command{
		"snapshot-v1.jsonl":           edit("first", everyKind()...),
		"snapshot-v1-vips.jsonl":      edit("first", virtualAddresses()...),
		"snapshot-v1-directors.jsonl": {ID: "first", Directors: settings()},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(nil)
			apply(t, m, 3, encode(t, first))
			apply(t, m, 5, encode(t, edit("second", addService(1, "rr"))))
			var written bytes.Buffer
			if err := writeSnapshot(&written, m.State()); err != nil {
				t.Fatal(err)
			}
			checkGolden(t, name, written.Bytes())
			state, err := readSnapshot(&written)
			if err != nil {
				t.Fatal(err)
			}
			if state.Hash() != m.State().Hash() {
				t.Errorf("the state read from the snapshot has another hash")
			}
			if state.Revision() != m.State().Revision() || state.Index() != 5 || !state.Table().Equal(m.State().Table()) {
				t.Errorf("read revision %d, index %d, table %v", state.Revision(), state.Index(), state.Table().Document())
			}
		})
	}
}

func TestDecodeCommandRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, data string
		code       Code
		message    string
	}{
		{"nothing", ``, Invalid, "EOF"},
		{"null", `null`, Unsupported, "version 0"},
		{"no version", `{"id":"a","changes":[{"op":"add-service"}]}`, Unsupported, "version 0"},
		{"newer", `{"v":2,"id":"a","later":{}}`, Unsupported, "version 2"},
		{"unknown field", `{"v":1,"id":"a","extra":1}`, Invalid, `unknown field "extra"`},
		{"unknown field of a change", `{"v":1,"id":"a","changes":[{"op":"delete-service","colour":1}]}`, Invalid, `unknown field "colour"`},
		{"unknown field of the table", `{"v":1,"id":"a","replace":{"services":[],"colour":1}}`, Invalid, `unknown field "colour"`},
		{"trailing", `{"v":1,"id":"a","replace":{"services":[]}} x`, Invalid, "after the end"},
		{"no id", `{"v":1,"replace":{"services":[]}}`, Invalid, "1 to 64"},
		{"long id", `{"v":1,"id":"` + strings.Repeat("x", 65) + `","replace":{"services":[]}}`, Invalid, "1 to 64"},
		{"blank in id", `{"v":1,"id":"a b","replace":{"services":[]}}`, Invalid, "visible"},
		{"control character in the author", `{"v":1,"id":"a","by":"x\u0007","replace":{"services":[]}}`, Invalid, "author"},
		{"neither", `{"v":1,"id":"a"}`, Invalid, "either"},
		{"settings beside a table", `{"v":1,"id":"a","directors":[{"node":"d1","drained":true}],"replace":{"services":[]}}`, Invalid, "either"},
		{"unknown setting", `{"v":1,"id":"a","directors":[{"node":"d1","colour":1}]}`, Invalid, `unknown field "colour"`},
		{"setting of nobody", `{"v":1,"id":"a","directors":[{"drained":true}]}`, Invalid, "1 to 63"},
		{"setting of a strange name", `{"v":1,"id":"a","directors":[{"node":"D 1","drained":true}]}`, Invalid, "D 1"},
		{"setting of nothing", `{"v":1,"id":"a","directors":[{"node":"d1"}]}`, Invalid, "nothing is set"},
		{"large preference", `{"v":1,"id":"a","directors":[{"node":"d1","preference":101}]}`, Invalid, "0 to 100"},
		{"negative preference", `{"v":1,"id":"a","directors":[{"node":"d1","preference":-1}]}`, Invalid, "0 to 100"},
		{"both", `{"v":1,"id":"a","changes":[{"op":"x"}],"replace":{"services":[]}}`, Invalid, "either"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := DecodeCommand([]byte(tc.data))
			var r *Rejection
			if !errors.As(err, &r) || r.Code != tc.code || !strings.Contains(r.Message, tc.message) {
				t.Errorf("error %v, want code %q and %q in it", err, tc.code, tc.message)
			}
		})
	}
}

func TestApplyAnswers(t *testing.T) {
	m := New(nil)
	if r := apply(t, m, 4, encode(t, edit("a", addService(1, "rr")))); r.Rejected != nil || r.Revision != 4 || r.Index != 4 {
		t.Fatalf("the first write: %+v", r)
	}
	stale := uint64(3)
	current := uint64(4)
	rename := ipvs.Change{Op: ipvs.SetService, Key: key(1), Service: &ipvs.Service{Key: key(1), Scheduler: "rr", Name: "web"}}
	for i, tc := range []struct {
		name     string
		data     []byte
		revision uint64
		code     Code
		repeated bool
	}{
		{"garbage", []byte("\x00garbage"), 4, Invalid, false},
		{"exists", encode(t, edit("b", addService(1, "rr"))), 4, Exists, false},
		{"missing", encode(t, edit("c", ipvs.Change{Op: ipvs.DeleteService, Key: key(2)})), 4, NotFound, false},
		{"broken rule", encode(t, edit("d", addService(2, "nonsense"))), 4, Invalid, false},
		{"all or nothing", encode(t, edit("e", addService(2, "rr"), addService(1, "rr"))), 4, Exists, false},
		{"stale revision", encode(t, Command{ID: "f", IfRevision: &stale, Changes: []ipvs.Change{addService(2, "rr")}}), 4, Conflict, false},
		{"no change keeps the revision", encode(t, edit("g", ipvs.Change{Op: ipvs.SetService, Key: key(1), Service: &ipvs.Service{Key: key(1), Scheduler: "rr"}})), 4, "", false},
		{"current revision", encode(t, Command{ID: "h", IfRevision: &current, Changes: []ipvs.Change{rename}}), 16, "", false},
		{"repeated, by somebody else", encode(t, Command{ID: "h", By: "x", IfRevision: &current, Changes: []ipvs.Change{rename}}), 16, "", true},
		{"repeated rejection", encode(t, edit("b", addService(1, "rr"))), 4, Exists, true},
		{"id reused", encode(t, edit("h", addService(3, "rr"))), 16, IDReused, false},
		{"id reused with another condition", encode(t, edit("h", rename)), 16, IDReused, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := apply(t, m, uint64(9+i), tc.data)
			var code Code
			if r.Rejected != nil {
				code = r.Rejected.Code
			}
			if r.Revision != tc.revision || code != tc.code || r.Repeated != tc.repeated {
				t.Errorf("%+v (rejected %v), want revision %d, code %q, repeated %v", r, r.Rejected, tc.revision, tc.code, tc.repeated)
			}
			if have := m.State().Index(); have != uint64(9+i) {
				t.Errorf("index %d, want %d", have, 9+i)
			}
		})
	}
	if n := m.State().Table().Len(); n != 1 {
		t.Errorf("%d services, want 1", n)
	}
}

func TestCheckSaysWhatApplyWouldSay(t *testing.T) {
	m := New(nil)
	apply(t, m, 1, encode(t, edit("a", addService(1, "rr"))))
	doc := &ipvs.Document{Services: []ipvs.Service{{Key: key(1), Scheduler: "no"}, {Key: key(1), Scheduler: "rr"}}}
	for _, tc := range []struct {
		name string
		c    Command
		want error
	}{
		{"good", edit("b", addService(2, "rr")), nil},
		{"repeated", edit("a", addService(1, "rr")), nil},
		{"exists", edit("b", addService(1, "rr")), os.ErrExist},
		{"invalid", Command{ID: "b", Replace: doc}, ipvs.ErrInvalid},
		{"no id", edit("", addService(2, "rr")), ipvs.ErrInvalid},
		{"version", Command{V: 2, ID: "b", Replace: doc}, errors.ErrUnsupported},
		{"conflict", Command{ID: "b", IfRevision: new(uint64), Changes: []ipvs.Change{addService(2, "rr")}}, ErrConflict},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := m.State().Check(tc.c); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
	var field *ipvs.FieldError
	if err := m.State().Check(Command{ID: "b", Replace: doc}); !errors.As(err, &field) || field.Path != "services[0].scheduler" {
		t.Errorf("the fields' errors are lost: %v", err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	doc := &ipvs.Document{}
	for range 1000 {
		doc.Services = append(doc.Services, ipvs.Service{Key: key(1), Scheduler: "nö"})
	}
	r := apply(t, New(nil), 1, encode(t, Command{ID: "a", Replace: doc}))
	if n := len(r.Rejected.Message); n > maxMessage || n < maxMessage/2 {
		t.Errorf("a message of %d bytes", n)
	}
}

func TestOldAnswersAreForgotten(t *testing.T) {
	m := New(nil)
	for i := range maxAnswers + 10 {
		apply(t, m, uint64(i+1), encode(t, edit(fmt.Sprint("id-", i), ipvs.Change{Op: ipvs.DeleteService, Key: key(1)})))
	}
	if len(m.known) != maxAnswers || len(m.State().answers) != maxAnswers {
		t.Fatalf("%d and %d answers are kept, want %d", len(m.known), len(m.State().answers), maxAnswers)
	}
	if r := apply(t, m, 20_001, encode(t, edit("id-10", ipvs.Change{Op: ipvs.DeleteService, Key: key(1)}))); !r.Repeated || r.Index != 11 {
		t.Errorf("the oldest kept write: %+v", r)
	}
	if r := apply(t, m, 20_002, encode(t, edit("id-9", addService(1, "rr")))); r.Repeated || r.Rejected != nil {
		t.Errorf("a forgotten write: %+v", r)
	}
}

func TestSnapshotStaysAsItWas(t *testing.T) {
	m := New(nil)
	for i := range maxAnswers + 5 {
		apply(t, m, uint64(i+1), encode(t, edit(fmt.Sprint("id-", i), ipvs.Change{Op: ipvs.DeleteService, Key: key(1)})))
	}
	before := m.State()
	hash := before.Hash()
	for i := range 3000 {
		apply(t, m, uint64(20_000+i), encode(t, edit(fmt.Sprint("later-", i), ipvs.Change{Op: ipvs.DeleteService, Key: key(1)})))
	}
	if before.Hash() != hash {
		t.Errorf("later commands changed an earlier state")
	}
}

// TestSettingsOfDirectors live beside the table: neither changes the other.
func TestSettingsOfDirectors(t *testing.T) {
	m := New(nil)
	apply(t, m, 1, encode(t, edit("a", addService(1, "rr"))))
	if r := apply(t, m, 2, encode(t, Command{ID: "b", Directors: settings()})); r.Rejected != nil || r.Revision != 1 {
		t.Fatalf("%+v", r)
	}
	if r := apply(t, m, 3, encode(t, Command{ID: "b", Directors: settings()[:1]})); r.Rejected == nil || r.Rejected.Code != IDReused {
		t.Errorf("another command with the same id: %+v", r)
	}
	apply(t, m, 4, encode(t, Command{ID: "c", Replace: &ipvs.Document{}}))
	want := []Director{{"d1", true, 50}, {"d2", false, 0}, {"d3.example.org", true, 0}}
	if diff := cmp.Diff(want, m.State().directors); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if d := m.State().Director("d4"); d.Drained || d.Preference != DefaultPreference || d.Node != "d4" {
		t.Errorf("nothing is set for d4: %+v", d)
	}
	before := m.State()
	yes := true
	var many []DirectorSetting
	for i := range MaxDirectors {
		many = append(many, DirectorSetting{Node: fmt.Sprint("n", i), Drained: &yes})
	}
	if r := apply(t, m, 5, encode(t, Command{ID: "d", Directors: many})); r.Rejected == nil || r.Rejected.Code != Invalid || !strings.Contains(r.Rejected.Message, "limit is 64") {
		t.Errorf("too many: %+v", r)
	}
	if r := apply(t, m, 6, encode(t, Command{ID: "e", Directors: many[:MaxDirectors-3]})); r.Rejected != nil {
		t.Errorf("as many as may be: %+v", r.Rejected)
	}
	if diff := cmp.Diff(want, before.directors); diff != "" {
		t.Errorf("a later command changed an earlier state (-want +got)\n%s", diff)
	}
}

func TestRestoreRefuses(t *testing.T) {
	m := New(nil)
	apply(t, m, 3, encode(t, edit("first", everyKind()...)))
	var written bytes.Buffer
	if err := writeSnapshot(&written, m.State()); err != nil {
		t.Fatal(err)
	}
	good := written.String()
	lines := strings.SplitAfter(strings.TrimSuffix(good, "\n"), "\n")
	hash := m.State().Hash()
	for _, tc := range []struct{ name, data, message string }{
		{"empty", "", "line 1: unexpected EOF"},
		{"newer", `{"v":2,"later":true}` + "\n", "version 2"},
		{"cut off", good[:len(good)/2], ""},
		{"without the sum", strings.Join(lines[:len(lines)-1], ""), "unexpected EOF"},
		{"a byte flipped", strings.Replace(good, `"weight":3`, `"weight":2`, 1), "checksum"},
		{"more after the end", good + "{}\n", "after the end"},
		{"too many answers", strings.Replace(good, `"answers":1`, `"answers":10001`, 1), "10001 answers"},
		{"too many services", strings.Replace(good, `"services":2`, `"services":20001`, 1), "20001 services"},
		{"unordered directors", strings.Replace(good, `"answers":1`, `"answers":1,"directors":[{"node":"b"},{"node":"a"}]`, 1), "order"},
		{"a director's preference", strings.Replace(good, `"answers":1`, `"answers":1,"directors":[{"node":"b","preference":101}]`, 1), "0 to 100"},
		{"revision in the future", strings.Replace(good, `"index":3`, `"index":2`, 1), "above index"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := m.Restore(readCloser{strings.NewReader(tc.data)})
			if err == nil || !strings.Contains(err.Error(), tc.message) {
				t.Errorf("error %v, want %q", err, tc.message)
			}
			if m.State().Hash() != hash {
				t.Errorf("a refused snapshot changed the state")
			}
		})
	}
}

func TestRejectionJSON(t *testing.T) {
	b, err := json.Marshal(reject(Invalid, errors.New("x")))
	if err != nil || string(b) != `{"code":"invalid","message":"x"}` {
		t.Errorf("%s, %v", b, err)
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
