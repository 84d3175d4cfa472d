package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tableJSON = `{"sync":{"enabled":true,"id":7},"timeouts":{"tcp":"15m"},"vips":[{"address":"10.1.0.1/24","network":"inside"}],"services":[{"service":"tcp://10.9.0.1:80","vip":false,"scheduler":"wrr","persistence":{"timeout":"5m","netmask":"255.255.255.0"},"destinations":[{"address":"10.9.0.21:80","forward":"tunnel","weight":2,"tunnel":{"type":"gue","port":6080,"checksum":"csum"}}]},{"service":"udp://10.9.0.1:53","scheduler":"rr","flags":["one-packet"]}]}`

// fake is an agent that remembers what it was asked.
type fake struct {
	mu     sync.Mutex
	view   TableView
	result WriteResult
	status Status
	still  string        // of Configure
	err    error         // the answer to everything
	hold   chan struct{} // when set, Write waits until it is closed
	writes []Write
	asked  []string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{view: TableView{Revision: 12, Node: "d1"}, result: WriteResult{Revision: 13}}
	if err := json.Unmarshal([]byte(tableJSON), &f.view.Table); err != nil {
		t.Fatal(err)
	}
	f.status = Status{Cluster: "lb", Leader: "d1", Revision: 12, Nodes: []NodeStatus{
		{
			Name: "d1", Role: RoleDirector, State: StateActive, Raft: "leader", Voter: true, AppliedRevision: 12,
			SyncDaemons: []ipvs.Daemon{{State: ipvs.Master, Interface: "eth0", SyncID: 7, Group: netip.MustParseAddr("224.0.0.81")}},
			Foreign:     1, ForeignServices: []ipvs.ServiceKey{ipvs.ServiceMarked(ipvs.IPv6, 7)},
			DriftRepaired: 3, Errors: []ObjectError{{Object: "tcp://10.9.0.1:80", Message: "no module"}},
		},
		{Name: "w", Role: RoleWitness, State: StateUnreachable},
	}}
	return f
}

func (f *fake) ask(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fake) Table(_ context.Context, stale bool) (TableView, error) {
	view := f.view
	if stale {
		view.Stale, view.Age = true, 1500*time.Millisecond
	}
	return view, f.ask("table stale=%v", stale)
}

func (f *fake) Write(ctx context.Context, w Write) (WriteResult, error) {
	f.mu.Lock()
	f.writes = append(f.writes, w)
	f.mu.Unlock()
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return WriteResult{}, ctx.Err()
		}
	}
	return f.result, f.ask("write")
}

func (f *fake) Status(context.Context) (Status, error) { return f.status, f.ask("status") }
func (f *fake) Events(_ context.Context, q EventQuery) (Events, error) {
	return Events{
		Events: []Event{
			{Time: time.Unix(1e9, 5e6).UTC(), Node: "d1", Kind: "active", Term: 7, Cause: "x", From: "a", Steps: []Step{{"b", 3}, {"c", 4}}, TotalMS: 7},
			{Time: time.Unix(1e9, 0).UTC(), Node: "d1", Kind: "stopping", Cause: "y"},
		},
		Silent: []SilentNode{{Node: "d2", Reason: "no answer"}},
	}, f.ask("events %q %d", q.Node, q.Limit)
}

func (f *fake) Members(context.Context) ([]Member, error) {
	return []Member{{ID: "1", Name: "d1", Address: "10.9.0.11:7400", Role: RoleDirector, Voter: true, Leader: true, Reachable: true}}, f.ask("members")
}

func (f *fake) RemoveMember(_ context.Context, node string) error {
	if node == "nobody" {
		return NewProblem(NotFound, "no member nobody")
	}
	return f.ask("remove %s", node)
}

func (f *fake) ReplaceMember(_ context.Context, node string) error { return f.ask("replace %s", node) }

func (f *fake) Configure(_ context.Context, node string, s MemberSettings) (MemberConfigured, error) {
	what := "configure " + node
	if s.Drained != nil {
		what += fmt.Sprintf(" drained=%t", *s.Drained)
	}
	if s.Preference != nil {
		what += fmt.Sprintf(" preference=%d", *s.Preference)
	}
	return MemberConfigured{StillActive: f.still}, f.ask("%s", what)
}

func (f *fake) Transfer(_ context.Context, node string) error { return f.ask("transfer %q", node) }
func (f *fake) Reconcile(context.Context) error               { return f.ask("reconcile") }

// serve runs a server for agent on a socket and returns a client. It ends with the
// test, which fails when the server did.
func serve(t *testing.T, agent Agent) (*Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "api.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(agent, nil).Run(ctx, path) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	awaitSocket(t, path)
	return NewClient("unix://" + path), path
}

func awaitSocket(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens: %v", err)
		}
		time.Sleep(time.Millisecond) // between polls
	}
}

func TestClientTable(t *testing.T) {
	agent := newFake(t)
	client, _ := serve(t, agent)
	for _, stale := range []bool{false, true} {
		got, err := client.Table(t.Context(), stale)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Table.Equal(agent.view.Table) {
			t.Error("the table differs")
		}
		want := TableView{Revision: 12, Node: "d1", Stale: stale}
		if stale {
			want.Age = 1500 * time.Millisecond
		}
		got.Table = ipvs.Table{}
		if got.Revision != want.Revision || got.Node != want.Node || got.Stale != stale || got.Age != want.Age {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestClientService(t *testing.T) {
	agent := newFake(t)
	client, _ := serve(t, agent)
	for want := range agent.view.Table.Services() {
		got, revision, err := client.Service(t.Context(), want.Key)
		if err != nil || !got.Equal(want) || revision != 12 {
			t.Errorf("%s: %+v at revision %d, %v", want.Key, got, revision, err)
		}
	}
	if _, _, err := client.Service(t.Context(), ipvs.ServiceMarked(ipvs.IPv6, 9)); KindOf(err) != NotFound || err.Error() != "no virtual service fwmark6://9" {
		t.Errorf("a service that is not there: %v", err)
	}
}

func TestClientWrite(t *testing.T) {
	agent := newFake(t)
	agent.result.Pending = []PendingNode{{Node: "d2", Reason: "slow"}}
	client, _ := serve(t, agent)
	revision := uint64(12)
	key := ipvs.ServiceMarked(ipvs.IPv4, 7)
	changes := []ipvs.Change{{Op: ipvs.DeleteService, Key: key}}
	doc := agent.view.Table.Document()
	for _, w := range []Write{
		{Changes: changes},
		{Changes: changes, ID: "x", IfRevision: &revision, Wait: WaitLeader},
		{Replace: &doc, ID: "y", IfRevision: &revision, Wait: WaitNone},
		{Replace: &ipvs.Document{}},
	} {
		result, err := client.Write(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(agent.result, result); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		got := agent.writes[len(agent.writes)-1]
		if w.ID != "" && got.ID != w.ID || len(got.ID) > 64 || got.ID == "" {
			t.Errorf("id %q arrived as %q", w.ID, got.ID)
		}
		if (got.IfRevision == nil) != (w.IfRevision == nil) || got.IfRevision != nil && *got.IfRevision != revision {
			t.Errorf("the revision was lost: %v", got.IfRevision)
		}
		if want := max(w.Wait, WaitAll); w.Wait == "" && got.Wait != want || w.Wait != "" && got.Wait != w.Wait {
			t.Errorf("wait %q arrived as %q", w.Wait, got.Wait)
		}
		if me, err := user.Current(); err == nil && got.By != me.Username {
			t.Errorf("the write is by %q, want the user at the other end, %q", got.By, me.Username)
		}
		if len(got.Changes) != len(w.Changes) || (got.Replace == nil) != (w.Replace == nil) {
			t.Errorf("%+v arrived as %+v", w, got)
		}
	}
}

func TestCaller(t *testing.T) {
	as := func(uid uint32) context.Context { return context.WithValue(t.Context(), peerKey{}, uid) }
	tests := []struct {
		ctx        context.Context
		told, want string
	}{
		{t.Context(), "alice", "alice"},
		{as(0), "", "root"},
		{as(0), "root", "root"},
		{as(0), "alice", "alice as root"},
		{as(4000000000), "root", "uid 4000000000"},
	}
	for _, tt := range tests {
		if got := caller(tt.ctx, tt.told); got != tt.want {
			t.Errorf("told %q: got %q, want %q", tt.told, got, tt.want)
		}
	}
}

func TestClientOperations(t *testing.T) {
	agent := newFake(t)
	client, _ := serve(t, agent)
	ctx := t.Context()
	status, err := client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := agent.status
	want.Warnings = []string{}
	want.Nodes[0].VIPs, want.Nodes[1].VIPs = []netip.Addr{}, []netip.Addr{}
	want.Nodes[0].Obstacles, want.Nodes[1].Obstacles = []string{}, []string{}
	want.Nodes[1].SyncDaemons, want.Nodes[1].ForeignServices, want.Nodes[1].Errors = []ipvs.Daemon{}, []ipvs.ServiceKey{}, []ObjectError{}
	if diff := cmp.Diff(want, status, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("status (-want +got)\n%s", diff)
	}
	members, err := client.Members(ctx)
	if err != nil || len(members) != 1 || !members[0].Leader {
		t.Errorf("members: %+v, %v", members, err)
	}
	yes, high := true, 90
	agent.still = "nobody else is up"
	configured, err := client.Configure(ctx, "d 2", MemberSettings{Drained: &yes, Preference: &high})
	if err != nil || configured.StillActive != agent.still {
		t.Errorf("configure: %+v, %v", configured, err)
	}
	if _, err := client.Configure(ctx, "d2", MemberSettings{}); KindOf(err) != Malformed {
		t.Errorf("nothing is set: %v", err)
	}
	for _, err := range []error{
		client.RemoveMember(ctx, "a/b c"), client.ReplaceMember(ctx, "d2"), client.Transfer(ctx, ""), client.Transfer(ctx, "d2&x"), client.Reconcile(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	asked := []string{"status", "members", "configure d 2 drained=true preference=90", "remove a/b c", "replace d2", `transfer ""`, `transfer "d2&x"`, "reconcile"}
	if diff := cmp.Diff(asked, agent.asked); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestClientGetsTheServersProblem(t *testing.T) {
	agent := newFake(t)
	client, _ := serve(t, agent)
	for kind := range httpStatus {
		want := NewProblem(kind, "the detail")
		want.Errors = []FieldError{{Field: "services[0].scheduler", Reason: "unknown"}}
		agent.err = fmt.Errorf("wrapped: %w", want)
		var got *Problem
		if err := client.Reconcile(t.Context()); !errors.As(err, &got) {
			t.Errorf("%s: got %v", kind, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestErrorsWithoutKind(t *testing.T) {
	agent := newFake(t)
	client, _ := serve(t, agent)
	for err, want := range map[error]Kind{errors.New("disk on fire"): Internal, context.DeadlineExceeded: Timeout} {
		agent.err = err
		if got := KindOf(client.Reconcile(t.Context())); got != want {
			t.Errorf("%v: got kind %s, want %s", err, got, want)
		}
	}
}

func TestServerRefuses(t *testing.T) {
	tests := []struct {
		name, method, path, body string
		header                   http.Header
		want                     Kind
		says                     string
	}{
		{name: "unknown path", method: "GET", path: "/v2", want: NotFound, says: "there is no GET /v2"},
		{name: "unknown method", method: "PATCH", path: "/v1/table", want: NotFound, says: "there is no PATCH /v1/table"},
		{name: "stale", method: "GET", path: "/v1/table?stale=yes", want: Malformed, says: "stale"},
		{name: "key", method: "GET", path: "/v1/service?key=http://10.9.0.1:80", want: Malformed, says: `key: service "http://10.9.0.1:80": unknown scheme`},
		{name: "timeout", method: "GET", path: "/v1/table?timeout=1", want: Malformed, says: `timeout "1"`},
		{name: "negative timeout", method: "GET", path: "/v1/table?timeout=-1s", want: Malformed, says: "timeout"},
		{name: "long timeout", method: "GET", path: "/v1/table?timeout=1h", want: Malformed, says: "at most 10m0s"},
		{name: "empty body", method: "PUT", path: "/v1/table", want: Malformed, says: "is empty"},
		{name: "no JSON", method: "PUT", path: "/v1/table", body: "services: []", want: Malformed, says: "request body"},
		{name: "two values", method: "PUT", path: "/v1/table", body: `{"services":[]} {}`, want: Malformed, says: "more than one JSON value"},
		{name: "unknown field", method: "PUT", path: "/v1/table", body: `{"services":[],"vipz":[]}`, want: Malformed, says: `unknown field "vipz"`},
		{name: "unknown inner field", method: "PUT", path: "/v1/table", body: `{"services":[{"service":"fwmark://1","destinations":[{"adress":"x"}]}]}`, want: Malformed, says: `unknown field "adress"`},
		{name: "no services", method: "PUT", path: "/v1/table", body: `{}`, want: Malformed, says: "services is missing"},
		{name: "null", method: "PUT", path: "/v1/table", body: `null`, want: Malformed, says: "services is missing"},
		{name: "If-Match", method: "PUT", path: "/v1/table", body: `{"services":[]}`, header: http.Header{"If-Match": {`"x"`}}, want: Malformed, says: "If-Match"},
		{name: "wait", method: "PUT", path: "/v1/table?wait=some", body: `{"services":[]}`, want: Malformed, says: `wait "some"`},
		{name: "no changes", method: "POST", path: "/v1/changes", body: `{}`, want: Malformed, says: "changes is missing"},
		{name: "replace in changes", method: "POST", path: "/v1/changes", body: `{"replace":{"services":[]}}`, want: Malformed, says: "PUT /v1/table"},
		{name: "too large", method: "PUT", path: "/v1/table", body: `{"services":[` + strings.Repeat(" ", ipvs.MaxDocument) + `]}`, want: TooLarge, says: "larger than 64 MiB"},
		{name: "too many changes", method: "POST", path: "/v1/changes", body: `{"changes":[` + strings.Repeat(" ", ipvs.MaxRequest) + `]}`, want: TooLarge, says: "larger than 1 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			agent := newFake(t)
			r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body))
			for name, values := range tt.header {
				r.Header[name] = values
			}
			w := httptest.NewRecorder()
			NewServer(agent, nil).Handler().ServeHTTP(w, r)
			var p Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatalf("%v: %s", err, w.Body)
			}
			if p.Kind != tt.want || w.Code != httpStatus[tt.want] || p.Status != w.Code || !strings.Contains(p.Detail, tt.says) {
				t.Errorf("got %d %+v, want kind %s saying %q", w.Code, p, tt.want, tt.says)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %s", got)
			}
			if len(agent.writes) > 0 {
				t.Error("the agent was asked all the same")
			}
		})
	}
}

// TestTableCanBePutBack: the answer of GET is a request of PUT.
func TestTableCanBePutBack(t *testing.T) {
	agent := newFake(t)
	handler := NewServer(agent, nil).Handler()
	get := httptest.NewRecorder()
	handler.ServeHTTP(get, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/table", nil))
	put := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), "PUT", "/v1/table", bytes.NewReader(get.Body.Bytes()))
	r.Header.Set("If-Match", get.Header().Get("ETag"))
	handler.ServeHTTP(put, r)
	if put.Code != http.StatusOK || put.Header().Get("ETag") != `"13"` {
		t.Fatalf("status %d, ETag %s: %s", put.Code, put.Header().Get("ETag"), put.Body)
	}
	table, err := agent.writes[0].Replace.Table()
	if err != nil {
		t.Fatal(err)
	}
	if !table.Equal(agent.view.Table) || *agent.writes[0].IfRevision != 12 {
		t.Error("another table arrived")
	}
}

func TestSocketAccess(t *testing.T) {
	_, path := serve(t, newFake(t))
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != fs.ModeSocket|0o660 {
		t.Errorf("mode %v, want a socket with 0660", got)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the socket there is %v, %v", entries, err)
	}
}

// TestLongSocketPath: the longest path that the kernel takes works.
func TestLongSocketPath(t *testing.T) {
	dir := "/tmp/" + strings.Repeat("x", 107-len("/tmp/")-len("/api.sock"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "api.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(newFake(t), nil).Run(ctx, path) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	awaitSocket(t, path)
	if _, err := NewClient("unix://"+path).Table(t.Context(), false); err != nil {
		t.Error(err)
	}
}

func TestSocketIsNotTakenFromOthers(t *testing.T) {
	agent := newFake(t)
	client, path := serve(t, agent)
	err := NewServer(agent, nil).Run(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), "another agent listens there") {
		t.Errorf("a second server gets %v", err)
	}
	if _, err := client.Table(t.Context(), false); err != nil {
		t.Errorf("the first one lost its socket: %v", err)
	}
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewServer(agent, nil).Run(t.Context(), file); err == nil {
		t.Error("a file was taken for a socket")
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "x" {
		t.Errorf("the file is gone: %v", err)
	}
}

func TestSocketOfAKilledAgentIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(newFake(t), nil).Run(ctx, path) }()
	awaitSocket(t, path)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there after the end: %v", err)
	}
}

func TestClientWithoutAgent(t *testing.T) {
	client := NewClient("unix://" + filepath.Join(t.TempDir(), "none.sock"))
	_, err := client.Write(t.Context(), Write{Changes: []ipvs.Change{{}}})
	if KindOf(err) == Unknown || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "is it running?") {
		t.Errorf("got %v, want that nothing was reached", err)
	}
	_, err = NewClient("http://127.0.0.1").Status(t.Context())
	if KindOf(err) != Malformed {
		t.Errorf("a wrong address gives %v", err)
	}
}

// breaking accepts connections, reads a request and hangs up, n times; afterwards
// it answers as handler.
func breaking(t *testing.T, n int, handler http.Handler) (*Client, func() []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var ids []string
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		ids = append(ids, r.Header.Get("Idempotency-Key"))
		broken := len(ids) <= n
		mu.Unlock()
		if broken {
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return NewClient("unix://" + path), func() []string { mu.Lock(); defer mu.Unlock(); return ids }
}

func TestClientTriesAgainWithTheSameID(t *testing.T) {
	agent := newFake(t)
	client, ids := breaking(t, 2, NewServer(agent, nil).Handler())
	doc := agent.view.Table.Document()
	if _, err := client.Write(t.Context(), Write{Replace: &doc}); err != nil {
		t.Fatal(err)
	}
	if got := ids(); len(got) != 3 || got[0] == "" || got[0] != got[1] || got[1] != got[2] {
		t.Errorf("ids of the attempts: %q, want three equal ones", got)
	}
}

// TestAnswerAfterSilence: the attempt without an answer may have been carried out.
func TestAnswerAfterSilence(t *testing.T) {
	for kind, want := range map[Kind]Kind{NoLeader: Unknown, Timeout: Unknown, Internal: Unknown, Invalid: Invalid, Exists: Exists} {
		agent := newFake(t)
		agent.err = NewProblem(kind, "as it is now")
		doc := agent.view.Table.Document()
		client, _ := breaking(t, 1, NewServer(agent, nil).Handler())
		if _, err := client.Write(t.Context(), Write{Replace: &doc}); KindOf(err) != want {
			t.Errorf("%s after silence gives %v (%s), want %s", kind, err, KindOf(err), want)
		}
		client, _ = breaking(t, 0, NewServer(agent, nil).Handler())
		if _, err := client.Write(t.Context(), Write{Replace: &doc}); KindOf(err) != kind {
			t.Errorf("%s at once gives %v (%s)", kind, err, KindOf(err))
		}
	}
}

func TestClientWithoutAnyAnswer(t *testing.T) {
	agent := newFake(t)
	client, ids := breaking(t, 1000, nil)
	doc := agent.view.Table.Document()
	if _, err := client.Write(t.Context(), Write{Replace: &doc}); KindOf(err) != Unknown {
		t.Errorf("a write without an answer gives %v, want an unknown outcome", err)
	}
	tried := len(ids())
	if err := client.Transfer(t.Context(), "d2"); KindOf(err) != Unknown {
		t.Errorf("a transfer without an answer gives %v, want an unknown outcome", err)
	}
	if got := len(ids()) - tried; got != 1 {
		t.Errorf("what has no id was asked %d times", got)
	}
	if _, err := client.Status(t.Context()); err == nil || KindOf(err) == Unknown {
		t.Errorf("a read without an answer gives %v", err)
	}
}

// TestWriteThatTakesTooLong: the agent is told the deadline and answers itself.
func TestWriteThatTakesTooLong(t *testing.T) {
	agent := newFake(t)
	agent.hold = make(chan struct{})
	client, _ := serve(t, agent)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	doc := agent.view.Table.Document()
	_, err := client.Write(ctx, Write{Replace: &doc})
	if KindOf(err) != Unknown || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("got %v, want the agent's word that the outcome is unknown", err)
	}
}

func TestCancelStopsTheClientAtOnce(t *testing.T) {
	agent := newFake(t)
	agent.hold = make(chan struct{})
	client, _ := serve(t, agent)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	doc := agent.view.Table.Document()
	go func() {
		_, err := client.Write(ctx, Write{Replace: &doc})
		done <- err
	}()
	for { // until the agent has been asked
		agent.mu.Lock()
		n := len(agent.writes)
		agent.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	select {
	case err := <-done:
		if KindOf(err) != Unknown {
			t.Errorf("got %v, want an unknown outcome", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the client goes on")
	}
	close(agent.hold)
}

// TestRequestInFlightFinishes: a server that stops lets a write end.
func TestRequestInFlightFinishes(t *testing.T) {
	agent := newFake(t)
	agent.hold = make(chan struct{})
	path := filepath.Join(t.TempDir(), "api.sock")
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- NewServer(agent, nil).Run(ctx, path) }()
	awaitSocket(t, path)
	written := make(chan error, 1)
	doc := agent.view.Table.Document()
	go func() {
		_, err := NewClient("unix://"+path).Write(t.Context(), Write{Replace: &doc})
		written <- err
	}()
	for {
		agent.mu.Lock()
		n := len(agent.writes)
		agent.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	for { // until the server has closed its socket
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(agent.hold)
	if err := <-written; err != nil {
		t.Errorf("the write: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	client, path := serve(t, newFake(t))
	var conns []net.Conn
	for range maxConnections {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Status(ctx); err == nil {
		t.Error("one connection more than the limit is served")
	}
	for _, conn := range conns {
		conn.Close()
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("after the others went: %v", err)
	}
}
