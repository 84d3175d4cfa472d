package reconcile

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

var update = flag.Bool("update", false, "rewrite the expected output of the scripts")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestScripts runs testdata/*.txt. A script is commands, each followed by what it
// must print, indented: the requests that the loop made of the kernel and, when it
// differs from before, the status. host.run lists the commands.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts, error %v", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { runScript(t, dir, path, string(want)) })
		})
	}
}

func runScript(t *testing.T, dir, path, want string) {
	h := newHost(t, dir)
	defer func() { h.stop() }() // restart replaces it
	var have strings.Builder
	lines := bufio.NewScanner(strings.NewReader(want))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "\t") {
			continue // the output expected so far
		}
		fmt.Fprintln(&have, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, out := range h.run(strings.Fields(line)) {
			fmt.Fprintln(&have, "\t"+out)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(have.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, have.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// host is a kernel and the loop that writes to it.
type host struct {
	t         *testing.T
	dir       string
	kernel    *memkernel.Kernel
	exclusive bool
	loop      *Loop
	stop      func()
	printed   string // the last status

	mu       sync.Mutex
	indexes  interfaces
	ops      []string                 // of the loop, since they were printed
	refusals map[string]syscall.Errno // by operation, or by operation and object
}

// Index implements syncd.Interfaces.
func (h *host) Index(name string) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.indexes.Index(name)
}

type interfaces map[string]int

func (i interfaces) Index(name string) (int, error) {
	if i[name] == 0 {
		return 0, os.ErrNotExist
	}
	return i[name], nil
}

func (h *host) BackupOnly() bool      { return false }
func (i interfaces) BackupOnly() bool { return false }

func newHost(t *testing.T, dir string) *host {
	h := &host{t: t, dir: dir, kernel: memkernel.New(), indexes: interfaces{"eth0": 2}, refusals: map[string]syscall.Errno{}}
	h.kernel.Refuse(func(op, object string) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		switch op {
		case kernel.OpServices:
			h.ops = append(h.ops, "read the kernel")
		case kernel.OpDaemons, kernel.OpTimeouts:
		default:
			h.ops = append(h.ops, strings.TrimSpace(op+" "+object))
		}
		for _, refused := range []string{op, op + " " + object} {
			if errno := h.refusals[refused]; errno != 0 {
				return errno
			}
		}
		return nil
	})
	h.start()
	return h
}

func (h *host) start() {
	loop, err := New(Config{Kernel: h.kernel, Interfaces: h, DataDir: h.dir, Exclusive: h.exclusive})
	if err != nil {
		h.t.Fatal(err)
	}
	loop.spread = func(d time.Duration) time.Duration { return d }
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	h.loop = loop
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run: %v", err)
		}
	}
}

// run carries out a command and returns what it printed:
//
//	desire REVISION ROLE [sync=off|ID] [tcp=SECONDS] [cluster=NAME] [SERVICE...]   SERVICE as in parseService
//	sleep DURATION | now | restart | exclusive
//	hand flush | hand add SERVICE... | hand delete KEY | hand start|stop master|backup | hand tcp SECONDS
//	refuse ERRNO OPERATION [OBJECT...] | refuse nothing
//	interface NAME INDEX          0 = gone
//	table                         prints the kernel's
func (h *host) run(words []string) []string {
	var out []string
	switch words[0] {
	case "desire":
		h.loop.Set(h.desired(words[1:]))
	case "sleep":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			h.t.Fatal(err)
		}
		time.Sleep(d)
	case "now":
		if err := h.loop.Now(h.t.Context()); err != nil {
			out = append(out, "error: "+strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	case "restart":
		h.stop()
		h.start()
	case "exclusive":
		h.exclusive = true
	case "hand":
		h.hand(words[1], words[2:])
	case "refuse", "interface":
		h.rig(words)
	case "table":
		return h.table()
	default:
		h.t.Fatalf("unknown command %q", words[0])
	}
	synctest.Wait()
	h.mu.Lock()
	out = append(out, h.ops...)
	h.ops = nil
	h.mu.Unlock()
	if status := h.status(); status != h.printed {
		h.printed = status
		out = append(out, strings.Split(status, "\n")...)
	}
	return out
}

// rig changes what the kernel refuses, or an interface.
func (h *host) rig(words []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if words[0] == "interface" {
		index, err := strconv.Atoi(words[2])
		if err != nil {
			h.t.Fatal(err)
		}
		h.indexes[words[1]] = index
		return
	}
	clear(h.refusals)
	if words[1] != "nothing" {
		errnos := map[string]syscall.Errno{"ENOENT": syscall.ENOENT, "EPERM": syscall.EPERM, "EINVAL": syscall.EINVAL}
		h.refusals[strings.Join(words[2:], " ")] = errnos[words[1]]
	}
}

func (h *host) status() string {
	s := h.loop.Status()
	state := "not converged"
	if s.Converged {
		state = "converged"
	}
	lines := []string{fmt.Sprintf("= revision %d, %s, %d repaired", s.AppliedRevision, state, s.DriftRepaired)}
	for _, d := range s.Daemons {
		lines[0] += fmt.Sprintf(", %s %s/%d", d.State, d.Interface, d.SyncID)
	}
	for _, k := range s.Foreign {
		lines = append(lines, "= foreign: "+k.String())
	}
	for _, e := range s.Errors {
		lines = append(lines, "= error: "+e.Object+": "+strings.ReplaceAll(e.Message, "\n", "; "))
	}
	for _, w := range s.Warnings {
		lines = append(lines, "= warning: "+w)
	}
	return strings.Join(lines, "\n")
}

func (h *host) desired(words []string) Desired {
	revision, err := strconv.ParseUint(words[0], 10, 64)
	if err != nil {
		h.t.Fatal(err)
	}
	role := slices.IndexFunc([]syncd.Role{syncd.None, syncd.Standby, syncd.Active}, func(r syncd.Role) bool { return r.String() == words[1] })
	d := Desired{Revision: revision, Role: syncd.Role(role), Interface: "eth0", Cluster: "lb"}
	var doc ipvs.Document
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		n, _ := strconv.Atoi(value)
		switch name {
		case "sync":
			doc.Sync = &ipvs.Sync{ID: n, Disabled: value == "off"}
		case "vip":
			doc.VIPs = &ipvs.VIPs{Listed: true, List: []ipvs.VIP{{Prefix: netip.MustParsePrefix(value)}}}
		case "tcp":
			doc.Timeouts = &ipvs.Timeouts{TCP: ipvs.Seconds(n)}
		default:
			doc.Services = append(doc.Services, parseService(h.t, w))
		}
	}
	if d.Table, err = doc.Table(); err != nil {
		h.t.Fatal(err)
	}
	return d
}

// parseService reads KEY[,scheduler][,ADDRESS[*WEIGHT]...][,name:TEXT][,no-vip]. An
// IPv6 destination in an IPv4 service is a tunnel, the others are masq.
func parseService(t *testing.T, text string) ipvs.Service {
	t.Helper()
	parts := strings.Split(text, ",")
	key, err := ipvs.ParseServiceKey(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	s := ipvs.Service{Key: key, Scheduler: "rr"}
	for _, part := range parts[1:] {
		if name, ok := strings.CutPrefix(part, "name:"); ok {
			s.Name = name
			continue
		}
		if part == "no-vip" {
			s.NoVIP = true
			continue
		}
		address, weight, weighted := strings.Cut(part, "*")
		addr, err := netip.ParseAddr(address)
		if err != nil {
			s.Scheduler = part
			continue
		}
		d := ipvs.Destination{Addr: netip.AddrPortFrom(addr, key.Port), Forward: ipvs.Masq, Weight: 1}
		if ipvs.FamilyOf(addr) != key.Family {
			d.Forward = ipvs.Tunnel
		}
		if weighted {
			n, err := strconv.Atoi(weight)
			if err != nil {
				t.Fatal(err)
			}
			d.Weight = int32(n)
		}
		s.Destinations = append(s.Destinations, d)
	}
	return s
}

// hand does what an operator does beside the loop.
func (h *host) hand(what string, words []string) {
	ctx, k := h.t.Context(), h.kernel.ByHand()
	check := func(err error) {
		if err != nil {
			h.t.Fatalf("by hand: %v", err)
		}
	}
	switch what {
	case "flush":
		check(k.Flush(ctx))
	case "add":
		for _, w := range words {
			s := parseService(h.t, w)
			if err := k.AddService(ctx, s); err != nil {
				check(k.SetService(ctx, s))
			}
			for _, d := range s.Destinations {
				if err := k.AddDestination(ctx, s.Key, d); err != nil {
					check(k.SetDestination(ctx, s.Key, d))
				}
			}
		}
	case "delete":
		key, err := ipvs.ParseServiceKey(words[0])
		check(err)
		check(k.DeleteService(ctx, key))
	case "start":
		check(k.StartDaemon(ctx, ipvs.Daemon{State: daemonState(words[0]), Interface: "eth0", SyncID: 99}))
	case "stop":
		check(k.StopDaemon(ctx, daemonState(words[0])))
	case "tcp":
		n, err := strconv.Atoi(words[0])
		check(err)
		check(k.SetTimeouts(ctx, ipvs.Timeouts{TCP: ipvs.Seconds(n)}))
	default:
		h.t.Fatalf("unknown edit %q", what)
	}
}

func daemonState(name string) ipvs.DaemonState {
	if name == "master" {
		return ipvs.Master
	}
	return ipvs.Backup
}

func (h *host) table() []string {
	table, err := h.kernel.ByHand().Table(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	var lines []string
	for s := range table.Services() {
		line := s.Key.String() + "," + s.Scheduler
		for _, d := range s.Destinations {
			line += fmt.Sprintf(",%s*%d", d.Addr.Addr(), d.Weight)
		}
		lines = append(lines, line)
	}
	return lines
}
