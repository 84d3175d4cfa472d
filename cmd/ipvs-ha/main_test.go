package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a cluster of one table. Refusals are those of the table itself.
type fake struct {
	table    ipvs.Table
	revision uint64
	races    int // so many writes find that somebody else has been quicker
	pending  []api.PendingNode
	skipped  []string
	still    string // why a drained director is active all the same
	err      error  // the answer to everything
	writes   []api.Write
	asked    []string
}

func (f *fake) Table(_ context.Context, stale bool) (api.TableView, error) {
	view := api.TableView{Table: f.table, Revision: f.revision, Node: "d2"}
	if stale {
		view.Stale, view.Age = true, 1500*time.Millisecond
	}
	return view, f.err
}

func (f *fake) Write(_ context.Context, w api.Write) (api.WriteResult, error) {
	f.writes = append(f.writes, w)
	if f.races > 0 {
		f.races--
		f.revision++
	}
	if f.err != nil {
		return api.WriteResult{}, f.err
	}
	if w.IfRevision != nil && *w.IfRevision != f.revision {
		return api.WriteResult{}, api.NewProblem(api.Conflict, "the table is at another revision")
	}
	var next ipvs.Table
	var err error
	if w.Replace != nil {
		next, err = w.Replace.Table()
	} else {
		next, err = f.table.Apply(w.Changes...)
	}
	if err != nil {
		return api.WriteResult{}, api.NewProblem(api.Invalid, err.Error())
	}
	f.table = next
	f.revision++
	return api.WriteResult{Revision: f.revision, Pending: f.pending, Skipped: f.skipped}, nil
}

func (f *fake) Status(context.Context) (api.Status, error) {
	return api.Status{
		Cluster: "lb", Leader: "d1", Revision: 12,
		Nodes: []api.NodeStatus{
			{
				Name: "d1", Role: api.RoleDirector, State: api.StateActive, Eligible: true, Preference: 70, Raft: "leader", Voter: true, AppliedRevision: 12,
				SyncDaemons: []ipvs.Daemon{{State: ipvs.Master, Interface: "eth0", SyncID: 7}},
				VIPs:        []netip.Addr{netip.MustParseAddr("10.9.0.1")}, VIPCount: 1, Fence: "open",
				Foreign: 1, ForeignServices: []ipvs.ServiceKey{ipvs.ServiceMarked(ipvs.IPv4, 7)}, DriftRepaired: 3,
			},
			{
				Name: "d2", Role: api.RoleDirector, State: api.StateStandby, Preference: 50, Raft: "follower", Voter: true, AppliedRevision: 11,
				Obstacles:   []string{"interface eth0 is down", "drained by the operator"},
				SyncDaemons: []ipvs.Daemon{{State: ipvs.Backup, Interface: "eth0", SyncID: 7}},
				Errors:      []api.ObjectError{{Object: "tcp://10.9.0.1:80", Message: "no module"}},
			},
			{Name: "w", Role: api.RoleWitness, State: api.StateUnreachable, Errors: []api.ObjectError{{Message: "no answer"}}},
		},
		Warnings: []string{"not highly available"},
	}, f.err
}

func (f *fake) Events(_ context.Context, q api.EventQuery) (api.Events, error) {
	f.asked = append(f.asked, fmt.Sprintf("events %q %d", q.Node, q.Limit))
	return api.Events{
		Events: []api.Event{
			{Time: time.Unix(1e9, 0).UTC(), Node: "d1", Kind: "stopping", Cause: "asked to"},
			{
				Time: time.Unix(1e9, 5e6).UTC(), Node: "d2", Kind: "active", Term: 7, Cause: "d1 gave leadership to this node", From: "lease ended",
				Steps: []api.Step{{Name: "elected", MS: 3}, {Name: "VIPs up", MS: 4}}, TotalMS: 7,
			},
		},
		Silent: []api.SilentNode{{Node: "d3", Reason: "no answer"}},
	}, f.err
}

func (f *fake) Members(context.Context) ([]api.Member, error) {
	return []api.Member{
		{ID: "a1", Name: "d1", Address: "10.9.0.11:7400", Role: api.RoleDirector, Voter: true, Leader: true, Reachable: true},
		{ID: "b2", Name: "w", Address: "10.9.0.12:7400", Role: api.RoleWitness, Waiting: "for the operator"},
	}, f.err
}

func (f *fake) ask(what ...string) error {
	f.asked = append(f.asked, strings.Join(what, " "))
	return f.err
}

func (f *fake) RemoveMember(_ context.Context, node string) error { return f.ask("remove", node) }
func (f *fake) Configure(_ context.Context, node string, s api.MemberSettings) (api.MemberConfigured, error) {
	what := []string{"configure", node}
	if s.Drained != nil {
		what = append(what, fmt.Sprintf("drained=%t", *s.Drained))
	}
	if s.Preference != nil {
		what = append(what, fmt.Sprintf("preference=%d", *s.Preference))
	}
	return api.MemberConfigured{StillActive: f.still}, f.ask(what...)
}

func (f *fake) ReplaceMember(_ context.Context, node string) error { return f.ask("replace", node) }
func (f *fake) Transfer(_ context.Context, node string) error      { return f.ask("transfer", node) }
func (f *fake) Reconcile(context.Context) error                    { return f.ask("reconcile") }

const smallTable = `services:
  - service: tcp://10.9.0.100:80
    name: "web"
    scheduler: wrr
    persistence: {timeout: 5m, netmask: 255.255.255.0}
    destinations:
      - {address: "10.9.0.21:80", forward: droute, weight: 1}
      - {address: "10.9.0.22:80", forward: tunnel, weight: 2, upper: 9, tunnel: {type: gue, port: 6080}}
`

// cli is the command line with an agent behind it.
type cli struct {
	t      *testing.T
	agent  *fake
	socket string
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	agent := &fake{}
	c := &cli{t: t, agent: agent, socket: filepath.Join(t.TempDir(), "api.sock")}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- api.NewServer(agent, nil).Run(ctx, c.socket) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("unix", c.socket)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // between polls
	}
	t.Setenv("IPVS_HA_API", "unix://"+c.socket)
	return c
}

// run runs one command and returns what it printed and its exit status.
func (c *cli) run(in string, args ...string) (out, errOut string, code int) {
	var stdout, stderr bytes.Buffer
	code = run(c.t.Context(), args, strings.NewReader(in), &stdout, &stderr)
	return stdout.String(), stderr.String(), code
}

// must runs a command that succeeds, and returns its standard output.
func (c *cli) must(in string, args ...string) string {
	c.t.Helper()
	out, errOut, code := c.run(in, args...)
	if code != exitOK {
		c.t.Fatalf("ipvs-ha %s: exit %d, %s", strings.Join(args, " "), code, errOut)
	}
	return out
}

func (c *cli) want(what, want, got string) {
	c.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Errorf("%s (-want +got)\n%s", what, diff)
	}
}

func TestApplyAndGet(t *testing.T) {
	c := newCLI(t)
	c.want("apply", "revision 1\n", c.must(smallTable, "apply", "-f", "-"))
	yaml := c.must("", "get")
	c.want("get", "# revision 1\n"+smallTable, yaml)
	c.want("get -o ipvsadm", `-A -t 10.9.0.100:80 -s wrr -p 300 -M 255.255.255.0
-a -t 10.9.0.100:80 -r 10.9.0.21:80 -g -w 1
-a -t 10.9.0.100:80 -r 10.9.0.22:80 -i -w 2 --tun-type gue --tun-port 6080 --tun-nocsum -x 9
`, c.must("", "get", "-o", "ipvsadm"))

	// What get prints is what apply reads.
	before := c.agent.table
	for _, format := range []string{"yaml", "json"} {
		file := filepath.Join(t.TempDir(), "table")
		if err := os.WriteFile(file, []byte(c.must("", "get", "-o", format)), 0o600); err != nil {
			t.Fatal(err)
		}
		c.must("", "apply", "-f", file)
		if !c.agent.table.Equal(before) {
			t.Errorf("-o %s lost something", format)
		}
	}
	_, errOut, _ := c.run("", "get", "--stale")
	c.want("get --stale", "d2 at revision 3; it heard a leader 1.5s ago\n", errOut)
}

func TestPlan(t *testing.T) {
	c := newCLI(t)
	plan := func(table string, want int, says string) {
		t.Helper()
		before, writes := c.agent.table, len(c.agent.writes)
		out, errOut, code := c.run(table, "plan", "-f", "-")
		if code != want || errOut != "" {
			t.Errorf("exit %d, %q, want %d", code, errOut, want)
		}
		c.want("plan", says, out)
		if !c.agent.table.Equal(before) || len(c.agent.writes) > writes {
			t.Error("plan changed something")
		}
	}
	plan("services: []\n", exitOK, "# revision 0: nothing to do\n")
	plan("timeouts: {udp: 5m}\nvips: []\nservices: []\n", exitChanges, "+timeouts: {udp: 5m}\n+vips: []\n# revision 0: settings changed\n")
	c.must(smallTable+"  - service: fwmark://7\n", "apply", "-f", "-")
	plan(c.must("", "get", "-o", "json"), exitOK, "# revision 1: nothing to do\n")
	const next = `sync: {id: 7}
services:
  - service: udp://10.9.0.100:53
    destinations: [{address: "10.9.0.21:53"}]
  - service: tcp://10.9.0.100:80
    name: "web"
    scheduler: wrr
    destinations:
      - {address: "10.9.0.23:80"}
      - {address: "10.9.0.21:80", weight: 0}
      - {address: "10.9.0.22:80", forward: tunnel, weight: 2, upper: 9, tunnel: {type: gue, port: 6080}}
`
	plan(next, exitChanges, `+sync: {enabled: true, id: 7}
   - service: tcp://10.9.0.100:80
-    persistence: {timeout: 5m, netmask: 255.255.255.0}
-      - {address: "10.9.0.21:80", forward: droute, weight: 1}
+      - {address: "10.9.0.21:80", forward: droute, weight: 0}
+      - {address: "10.9.0.23:80", forward: droute, weight: 1}
+  - service: udp://10.9.0.100:53
+    scheduler: wlc
+    destinations:
+      - {address: "10.9.0.21:53", forward: droute, weight: 1}
-  - service: fwmark://7
-    scheduler: wlc
# revision 1: settings changed; services: 1 new, 1 changed, 1 deleted
`)
	c.must(next, "apply", "-f", "-", "--if-revision", "1")
	plan(next, exitOK, "# revision 2: nothing to do\n")
}

func TestServiceAndDestination(t *testing.T) {
	c := newCLI(t)
	steps := []struct {
		args string
		want string // the table afterwards
	}{
		{"service add tcp://10.9.0.100:80 --scheduler sh --flags sh-port,sh-fallback --persistence-timeout 5m --netmask 255.255.255.0 --name web", `
  - service: tcp://10.9.0.100:80
    name: "web"
    scheduler: sh
    persistence: {timeout: 5m, netmask: 255.255.255.0}
    flags: [sh-fallback, sh-port]
`},
		{"service set tcp://10.9.0.100:80 --scheduler wrr --flags=", `
  - service: tcp://10.9.0.100:80
    name: "web"
    scheduler: wrr
    persistence: {timeout: 5m, netmask: 255.255.255.0}
`},
		{"service set tcp://10.9.0.100:80 --netmask= --comment hello", `
  - service: tcp://10.9.0.100:80
    name: "web"
    comment: "hello"
    scheduler: wrr
    persistence: {timeout: 5m}
`},
		{"destination add tcp://10.9.0.100:80 10.9.0.21:80", `
  - service: tcp://10.9.0.100:80
    name: "web"
    comment: "hello"
    scheduler: wrr
    persistence: {timeout: 5m}
    destinations:
      - {address: "10.9.0.21:80", forward: droute, weight: 1}
`},
		{"service set tcp://10.9.0.100:80 --persistence-timeout 0 --name= --comment=", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
    destinations:
      - {address: "10.9.0.21:80", forward: droute, weight: 1}
`},
		{"destination set tcp://10.9.0.100:80 10.9.0.21:80 --forward tunnel --tunnel-type gue --tunnel-port 6080 --tunnel-checksum csum --upper 9 --lower 5", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
    destinations:
      - {address: "10.9.0.21:80", forward: tunnel, weight: 1, upper: 9, lower: 5, tunnel: {type: gue, port: 6080, checksum: csum}}
`},
		{"destination set tcp://10.9.0.100:80 10.9.0.21:80 --weight 0 --name a", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
    destinations:
      - {address: "10.9.0.21:80", name: "a", forward: tunnel, weight: 0, upper: 9, lower: 5, tunnel: {type: gue, port: 6080, checksum: csum}}
`},
		{"destination set tcp://10.9.0.100:80 10.9.0.21:80 --forward droute", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
    destinations:
      - {address: "10.9.0.21:80", name: "a", forward: droute, weight: 0, upper: 9, lower: 5}
`},
		{"destination delete tcp://10.9.0.100:80 10.9.0.21:80", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
`},
		{"service add fwmark6://7 --persistence-timeout 60 --prefix 64", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
  - service: fwmark6://7
    scheduler: wlc
    persistence: {timeout: 1m, prefix: 64}
`},
		{"service delete fwmark6://7", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
`},
		{"service set tcp://10.9.0.100:80 --vip=false", `
  - service: tcp://10.9.0.100:80
    vip: false
    scheduler: wrr
`},
		{"service set tcp://10.9.0.100:80 --scheduler rr", `
  - service: tcp://10.9.0.100:80
    vip: false
    scheduler: rr
`},
		{"service set tcp://10.9.0.100:80 --vip=true --scheduler wrr", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
`},
		{"service add udp://10.9.0.100:53 --vip=false", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
  - service: udp://10.9.0.100:53
    vip: false
    scheduler: wlc
`},
		{"service delete udp://10.9.0.100:53", `
  - service: tcp://10.9.0.100:80
    scheduler: wrr
`},
		{"service delete tcp://10.9.0.100:80", " []\n"},
	}
	for _, step := range steps {
		c.must("", strings.Fields(step.args)...)
		_, got, _ := strings.Cut(c.must("", "get"), "\n")
		c.want(step.args, "services:"+step.want, got)
	}
}

// TestSetMeetsOtherWriters: an edit that reads first is made again when the table
// has changed meanwhile.
func TestSetMeetsOtherWriters(t *testing.T) {
	c := newCLI(t)
	c.must(smallTable, "apply", "-f", "-")
	c.agent.races = 2
	c.must("", "destination", "set", "tcp://10.9.0.100:80", "10.9.0.21:80", "--weight", "5")
	if n := len(c.agent.writes) - 1; n != 3 {
		t.Errorf("%d writes, want 3", n)
	}
	c.agent.races = 1000
	if _, errOut, code := c.run("", "service", "set", "tcp://10.9.0.100:80", "-s", "rr"); code != exitFailed {
		t.Errorf("exit %d, %s", code, errOut)
	}
}

func TestWriteOptions(t *testing.T) {
	c := newCLI(t)
	c.agent.revision = 7
	c.must(smallTable, "apply", "-f", "-", "--if-revision", "7", "--wait", "leader")
	w := c.agent.writes[0]
	if w.IfRevision == nil || *w.IfRevision != 7 || w.Wait != api.WaitLeader {
		t.Errorf("arrived: %+v", w)
	}
	if _, _, code := c.run(smallTable, "apply", "-f", "-", "--if-revision", "7"); code != exitFailed {
		t.Errorf("an old revision exits %d", code)
	}
	c.must("", "service", "add", "fwmark://1")
	if w := c.agent.writes[2]; w.IfRevision != nil || w.Wait != api.WaitAll {
		t.Errorf("defaults: %+v", w)
	}
}

func TestPendingKernels(t *testing.T) {
	c := newCLI(t)
	c.agent.pending = []api.PendingNode{{Node: "d2", Reason: "no scheduler mh"}, {Node: "d3", Reason: "not in time"}}
	_, errOut, code := c.run(smallTable, "apply", "-f", "-")
	if code != exitPending {
		t.Errorf("exit %d, want %d", code, exitPending)
	}
	c.want("stderr", "ipvs-ha: revision 1 is committed, but not yet in every kernel:\n  d2: no scheduler mh\n  d3: not in time\n", errOut)
	c.agent.pending, c.agent.skipped = nil, []string{"d3"}
	_, errOut, code = c.run(smallTable, "apply", "-f", "-")
	c.want("stderr", "ipvs-ha: not waited for, since they cannot be reached: d3\n", errOut)
	if code != exitOK {
		t.Errorf("exit %d with a director that cannot be reached, want %d", code, exitOK)
	}
}

func TestStatus(t *testing.T) {
	c := newCLI(t)
	c.want("status", `cluster lb, leader d1, revision 12

NODE  ROLE      STATE        ELIGIBLE            RAFT      VOTER  REVISION  SYNC DAEMONS         VIPS           FOREIGN  REPAIRED
d1    director  active       yes, preference 70  leader    yes    12        master on eth0 id 7  1, fence open  1        3
d2    director  standby      no                  follower  yes    11        backup on eth0 id 7  -              0        0
w     witness   unreachable  -                   -         no     0         -                    -              0        0

d2: not eligible: interface eth0 is down; drained by the operator
d2: tcp://10.9.0.1:80: no module
w: no answer
d1: not in the table: fwmark://7
warning: not highly available
`, c.must("", "status"))

	var got struct {
		Cluster, Leader string
		Revision        uint64
		Nodes           []map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(c.must("", "status", "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Cluster != "lb" || got.Leader != "d1" || got.Revision != 12 || len(got.Nodes) != 3 {
		t.Errorf("got %+v", got)
	}
	for _, key := range []string{"name", "role", "state", "eligible", "obstacles", "drained", "preference", "raft", "voter", "applied_revision", "sync_daemons", "foreign", "drift_repaired", "errors"} {
		if value := got.Nodes[2][key]; value == nil || string(value) == "null" {
			t.Errorf("%s of a node is %q", key, value)
		}
	}
	if daemon := string(got.Nodes[0]["sync_daemons"]); !strings.Contains(daemon, `"state": "master"`) || !strings.Contains(daemon, `"id": 7`) {
		t.Errorf("sync_daemons: %s", daemon)
	}
}

func TestEvents(t *testing.T) {
	c := newCLI(t)
	out, errOut, _ := c.run("", "events", "--node", "d9", "--limit", "5")
	c.want("events", `TIME                      NODE  EVENT     CAUSE
2001-09-09T01:46:40.000Z  d1    stopping  asked to
2001-09-09T01:46:40.005Z  d2    active    term 7; d1 gave leadership to this node; lease ended -> elected 3 ms -> VIPs up 4 ms (total 7 ms)
`, out)
	c.want("what is missing", "events of d3 are missing: no answer\n", errOut)
	c.want("asked", `events "d9" 5`, strings.Join(c.agent.asked, ", "))
}

func TestMembers(t *testing.T) {
	c := newCLI(t)
	c.want("members", `NODE  ID  ADDRESS         ROLE      VOTER  LEADER  REACHABLE  WAITS FOR
d1    a1  10.9.0.11:7400  director  yes    yes     yes        -
w     b2  10.9.0.12:7400  witness   no     no      no         for the operator
`, c.must("", "members"))
	c.must("", "members", "remove", "d3")
	c.must("", "members", "replace", "d3")
	c.must("", "transfer")
	c.must("", "transfer", "d2")
	c.must("", "reconcile")
	c.must("", "drain", "d1")
	c.must("", "undrain", "d1")
	c.must("", "prefer", "d2", "70")
	c.agent.still = "d2: its link is down\nd3: it cannot be reached"
	_, errOut, code := c.run("", "drain", "d1")
	c.want("drain that moves nothing", "ipvs-ha: d1 is drained, but serves on until another director is fitter:\n  d2: its link is down\n  d3: it cannot be reached\n", errOut)
	if code != exitPending {
		t.Errorf("drain that moves nothing: exit %d, want %d", code, exitPending)
	}
	if diff := cmp.Diff([]string{
		"remove d3", "replace d3", "transfer ", "transfer d2", "reconcile",
		"configure d1 drained=true", "configure d1 drained=false", "configure d2 preference=70", "configure d1 drained=true",
	}, c.agent.asked); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestExitStatus(t *testing.T) {
	const service = "tcp://10.9.0.100:80"
	tests := []struct {
		name, args, in string
		err            error
		want           int
		says           string
	}{
		{name: "version", args: "version", want: exitOK},
		{name: "version as a flag", args: "--version", want: exitOK},
		{name: "help", args: "help", want: exitOK},
		{name: "unknown command", args: "frob", want: exitUsage, says: `unknown command "frob"`},
		{name: "mistyped command", args: "aply -f -", want: exitUsage, says: "did you mean apply?\n"},
		{name: "mistyped subcommand", args: "destination sett x --weight 1", want: exitUsage, says: "did you mean set?\n"},
		{name: "nothing", args: "", want: exitUsage, says: "a subcommand is missing"},
		{name: "no subcommand", args: "service", want: exitUsage, says: "service: a subcommand is missing"},
		{name: "unknown subcommand", args: "service frob", want: exitUsage, says: `unknown command "frob"`},
		{name: "unknown flag", args: "get --frob", want: exitUsage, says: "unknown flag"},
		{name: "bad number", args: "destination add " + service + " 10.9.0.21:80 --weight x", want: exitUsage, says: "--weight \"x\": want a whole number from 0 to 2147483647\n"},
		{name: "large weight", args: "destination set " + service + " 10.9.0.21:80 -w 2147483648", want: exitUsage, says: "--weight \"2147483648\": want a whole number from 0 to 2147483647\n"},
		{name: "octal weight", args: "destination set " + service + " 10.9.0.21:80 -w 010", want: exitUsage, says: "--weight \"010\": could be read in two ways; write 10\n"},
		{name: "tunnel port", args: "destination set " + service + " 10.9.0.21:80 --tunnel-port 65536", want: exitUsage, says: "--tunnel-port \"65536\": want a whole number from 0 to 65535\n"},
		{name: "prefix", args: "service add fwmark6://1 --persistence-timeout 5m --prefix 129", want: exitUsage, says: "--prefix \"129\": want a whole number from 0 to 128\n"},
		{name: "revision", args: "apply -f - --if-revision x", want: exitUsage, says: "--if-revision \"x\": want a whole number from 0 to 18446744073709551615\n"},
		{name: "limit", args: "events --limit x", want: exitUsage, says: "--limit \"x\": want a whole number from 1 to 2000\n"},
		{name: "limit 0", args: "events --limit 0", want: exitUsage, says: "--limit \"0\": want a whole number from 1 to 2000\n"},
		{name: "empty scheduler", args: "service add fwmark://1 --scheduler=", want: exitUsage, says: "--scheduler: unknown scheduler \"\", want one of dh, fo,"},
		{name: "unknown scheduler", args: "service add fwmark://1 --scheduler quick", want: exitUsage, says: "--scheduler: unknown scheduler \"quick\", want one of dh, fo,"},
		{name: "netmask in words", args: "service add fwmark://1 --persistence-timeout 5m --netmask c", want: exitUsage, says: "--netmask \"c\": want a mask like 255.255.255.0"},
		{name: "netmask with a gap", args: "service add fwmark://1 --persistence-timeout 5m --netmask 255.0.255.0", want: exitUsage, says: "--netmask: 255.0.255.0 has a gap"},
		{name: "engine", args: "service add udp://10.9.0.1:53 --persistence-timeout 5m --engine http", want: exitUsage, says: "--engine \"http\": want sip"},
		{name: "persistence in days", args: "service add fwmark://1 --persistence-timeout 40d", want: exitUsage, says: "--persistence-timeout: duration \"40d\": want a number with a unit"},
		{name: "long persistence", args: "service add fwmark://1 --persistence-timeout 800h", want: exitUsage, says: "--persistence-timeout: 800h is longer than the limit of 744h"},
		{name: "long name", args: "service add fwmark://1 --name " + strings.Repeat("x", 65), want: exitUsage, says: "--name has 65 bytes, the limit is 64"},
		{name: "long comment", args: "destination set " + service + " 10.9.0.21:80 --comment " + strings.Repeat("x", 257), want: exitUsage, says: "--comment has 257 bytes, the limit is 256"},
		{name: "no unicast address", args: "service add tcp://224.0.0.1:80", want: exitUsage, says: "address 224.0.0.1 is not a unicast address"},
		{name: "missing argument", args: "service add", want: exitUsage, says: "service add: "},
		{name: "argument too many", args: "status now", want: exitUsage},
		{name: "no service", args: "service add 10.9.0.100:80", want: exitUsage, says: "want tcp://ADDRESS:PORT"},
		{name: "bad address", args: "service add tcp://10.9.0.300:80", want: exitUsage, says: "\"10.9.0.300\" is not an IP address"},
		{name: "bad port", args: "service add tcp://10.9.0.100:70000", want: exitUsage, says: "port \"70000\" is not a number from 0 to 65535"},
		{name: "destination's port", args: "destination add " + service + " 10.9.0.21:x", want: exitUsage, says: "port \"x\" is not a number from 0 to 65535"},
		{name: "destination that is none", args: "destination add " + service + " 224.0.0.1:80", want: exitUsage, says: "destination \"224.0.0.1:80\": address 224.0.0.1 is not a unicast address"},
		{name: "destination by name", args: "destination add " + service + " web1:80", want: exitUsage, says: "host names are not accepted"},
		{name: "no destination", args: "destination add " + service + " 10.9.0.21", want: exitUsage, says: "ADDRESS:PORT"},
		{name: "output", args: "get -o xml", want: exitUsage, says: "yaml, json or ipvsadm"},
		{name: "status output", args: "status -o yaml", want: exitUsage, says: "table or json"},
		{name: "wait", args: "service delete fwmark://1 --wait some", want: exitUsage, says: "all, leader or none"},
		{name: "preference", args: "prefer d1 high", want: exitUsage, says: "prefer: \"high\": want a whole number from 0 to 100\n"},
		{name: "negative preference", args: "prefer d1 -1", want: exitUsage, says: "prefer: \"-1\": want a whole number from 0 to 100\n"},
		{name: "large preference", args: "prefer d1 101", want: exitUsage, says: "prefer: \"101\": want a whole number from 0 to 100\n"},
		{name: "unknown flag of prefer", args: "prefer d1 -x", want: exitUsage, says: "unknown shorthand flag: 'x'"},
		{name: "preference of nobody", args: "prefer d1", want: exitUsage, says: "prefer: "},
		{name: "timeout", args: "get --timeout 0s", want: exitUsage, says: "--timeout \"0s\": want a time above 0 and up to 10m, like 30s or 2m\n"},
		{name: "timeout without a unit", args: "get --timeout 5", want: exitOK},
		{name: "timeout in words", args: "get --timeout soon", want: exitUsage, says: "--timeout \"soon\": want a time above 0"},
		{name: "long timeout", args: "get --timeout 601", want: exitUsage, says: "--timeout \"601\": want a time above 0 and up to 10m"},
		{name: "api", args: "get --api http://localhost", want: exitUsage, says: "want unix:///PATH"},
		{name: "forward", args: "destination add " + service + " 10.9.0.21:80 --forward dr", want: exitUsage, says: "--forward"},
		{name: "flag name", args: "service add fwmark://1 --flags fast", want: exitUsage, says: "--flags"},
		{name: "vip", args: "service add tcp://10.9.0.1:80 --vip=maybe", want: exitUsage, says: "--vip \"maybe\": want true or false\n"},
		{name: "vip of a mark", args: "service add fwmark://1 --vip=false", want: exitFailed, says: "vip: is for services with an address"},
		{name: "no file", args: "apply", want: exitUsage, says: "-f FILE is missing"},
		{name: "no file to plan", args: "plan", want: exitUsage, says: "plan: -f FILE is missing"},
		{name: "file as an argument", args: "plan table.yaml", want: exitUsage, says: "plan: want -f table.yaml"},
		{name: "plan of nonsense", args: "plan -f -", in: "services: 7", want: exitFailed, says: "standard input:1: services: want a list"},
		{name: "plan without a leader", args: "plan -f -", in: "services: []", err: api.NewProblem(api.NoLeader, "none of 3 answers"), want: exitFailed, says: "no leader"},
		{name: "agent without configuration", args: "agent", want: exitUsage, says: "either --config FILE or --dev"},
		{name: "agent with both", args: "agent --dev --config x", want: exitUsage},
		{name: "recover without the dead", args: "recover --config x", want: exitUsage, says: "recover: want --config FILE and --dead"},
		{name: "recover without configuration", args: "recover --dead d2,d3", want: exitUsage, says: "recover: want --config FILE and --dead"},
		{name: "log level", args: "agent --dev --check --log-level loud", want: exitUsage, says: "--log-level"},
		{name: "log format", args: "agent --dev --check --log-format xml", want: exitUsage, says: "--log-format"},

		{name: "missing configuration", args: "agent --config /nonexistent.yaml", want: exitFailed, says: "/nonexistent.yaml"},
		{name: "recover's missing configuration", args: "recover --config /nonexistent.yaml --dead d2", want: exitFailed, says: "/nonexistent.yaml"},
		{name: "missing table", args: "apply -f /nonexistent.yaml", want: exitFailed, says: "/nonexistent.yaml"},
		{name: "empty table file", args: "apply -f -", want: exitFailed, says: "services: is missing"},
		{name: "unknown key", args: "apply -f -", in: "services:\n  - service: " + service + "\n    schedular: rr\n", want: exitFailed, says: "standard input:3: services[0].schedular: unknown key"},
		{name: "nobody there", args: "get --api unix:///nonexistent.sock", want: exitFailed, says: "is it running?"},
		{name: "missing service", args: "service set fwmark://9 -s rr", want: exitFailed, says: "no virtual service fwmark://9"},
		{name: "missing destination", args: "destination set " + service + " 10.9.0.9:80 -w 1", want: exitFailed, says: "no destination 10.9.0.9:80"},
		{name: "existing service", args: "service add " + service, want: exitFailed, says: "add " + service + ": the virtual service exists already\n"},
		{name: "weight -1", args: "destination set " + service + " 10.9.0.21:80 --weight -1", want: exitUsage, says: "--weight \"-1\": want a whole number from 0 to 2147483647\n"},
		{name: "lower alone", args: "destination set " + service + " 10.9.0.21:80 --lower 5", want: exitFailed, says: "lower: needs upper"},
		{name: "netmask alone", args: "service add tcp://10.9.0.9:80 --netmask 255.0.0.0", want: exitFailed, says: "persistence.netmask: needs persistence.timeout"},
		{name: "two reasons", args: "service set " + service + " -s rr --flags sh-port,one-packet", want: exitFailed, says: "\n" + service + ": flags: one-packet is for udp"},
		{name: "no leader", args: "get", err: api.NewProblem(api.NoLeader, "none of 3 answers"), want: exitFailed, says: "no leader: none of 3 answers"},
		{name: "refused", args: "members remove d1", err: api.NewProblem(api.Refused, "the last voter"), want: exitFailed, says: "ipvs-ha: the last voter\n"},
		{name: "unknown outcome", args: "service delete fwmark://1", err: api.NewProblem(api.Unknown, "the leader went away"), want: exitUnknown, says: "outcome unknown: the leader went away"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCLI(t)
			c.must(smallTable, "apply", "-f", "-")
			before := c.agent.table
			c.agent.err = tt.err
			_, errOut, code := c.run(tt.in, strings.Fields(tt.args)...)
			if code != tt.want {
				t.Errorf("exit %d, want %d", code, tt.want)
			}
			if !strings.Contains(errOut, tt.says) || (errOut == "") != (code == exitOK) {
				t.Errorf("stderr %q, want it to say %q", errOut, tt.says)
			}
			if strings.Contains(errOut, "ipvs-ha: ipvs-ha") {
				t.Errorf("stderr stutters: %q", errOut)
			}
			if !c.agent.table.Equal(before) {
				t.Error("the table changed")
			}
		})
	}
}

func TestAgentCheck(t *testing.T) {
	c := newCLI(t)
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("node: d1\ncluster: {name: lb, address: 10.9.0.11, expect: 1}\n")
	c.must("", "agent", "--check", "--config", file)
	write("node: d1\nrole: boss\n")
	_, errOut, code := c.run("", "agent", "--check", "--config", file)
	if code != exitFailed || !strings.Contains(errOut, file+":2: role: ") {
		t.Errorf("exit %d, %s", code, errOut)
	}
}

func TestDevDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	first, err := devConfig()
	if err != nil {
		t.Fatal(err)
	}
	second, err := devConfig()
	if err != nil {
		t.Fatal(err)
	}
	if first.DataDir != second.DataDir || first.API.Socket != second.API.Socket {
		t.Errorf("data in %s and %s, sockets %s and %s", first.DataDir, second.DataDir, first.API.Socket, second.API.Socket)
	}
	dir := filepath.Dir(first.API.Socket)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := devConfig(); err == nil {
		t.Error("a link laid by somebody else is followed")
	}
}

// TestEveryCommandIsDocumented: each has a summary, and each flag a usage.
func TestEveryCommandIsDocumented(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s has no summary", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRoot())
	pinned := []string{"agent", "apply", "destination", "drain", "events", "get", "man", "members", "plan", "prefer", "reconcile", "recover", "release", "service", "status", "transfer", "undrain", "version"}
	var names []string
	for _, c := range newRoot().Commands() {
		names = append(names, c.Name())
	}
	slices.Sort(names)
	if diff := cmp.Diff(pinned, names); diff != "" {
		t.Errorf("commands (-want +got)\n%s", diff)
	}
}

func TestManPagesAndCompletion(t *testing.T) {
	c := newCLI(t)
	dir := t.TempDir()
	c.must("", "man", dir)
	for _, page := range []string{"ipvs-ha.8", "ipvs-ha-agent.8", "ipvs-ha-destination-set.8"} {
		if info, err := os.Stat(filepath.Join(dir, page)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", page, err)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := c.must("", "completion", shell); !strings.Contains(out, "ipvs-ha") {
			t.Errorf("no completion for %s", shell)
		}
	}
}
