// Package e2e_test runs whole clusters: agents as processes, each in a network
// namespace of its own, on a real kernel with IPVS.
package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/ipvs-ha/ipvs-ha/api"
)

// patience is how long a test waits for what must come. The kernel may be an
// emulated one, many times slower than a real machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv("IPVS_HA_REAL_KERNEL") {
	case "":
		fmt.Println("these tests make network namespaces on a real kernel; run them with: make e2e")
		os.Exit(0)
	default:
		if os.Getenv("IPVS_HA_BIN") == "" {
			fmt.Println("IPVS_HA_BIN does not name the ipvs-ha binary")
			os.Exit(1)
		}
		code := m.Run()
		results.print(os.Stdout)
		os.Exit(code)
	}
}

// lab is a bridge with hosts on it. Its names are short and unique, so that labs do
// not meet.
type lab struct {
	t      testing.TB
	dir    string
	bridge string
	prefix string
	nodes  []*node
	probe  *probe // nil: nobody watches
	probe6 *probe // of an IPv6 VIP; nil: nobody watches
}

var labs atomic.Int32

// newLab makes a lab of directors (and witnesses, by the names that start with w).
func newLab(t testing.TB, names ...string) *lab {
	t.Helper()
	number := labs.Add(1)
	l := &lab{t: t, dir: t.TempDir(), bridge: fmt.Sprintf("br%d", number), prefix: fmt.Sprintf("l%d", number)}
	for dir := l.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil { // an agent may run without root
			t.Fatal(err)
		}
	}
	l.addBridge(l.bridge)
	for i, name := range names {
		l.nodes = append(l.nodes, l.addNode(name, fmt.Sprintf("10.9.0.%d", 11+i)))
	}
	return l
}

func (l *lab) addBridge(name string) {
	l.t.Helper()
	l.run("ip", "link", "add", name, "type", "bridge")
	l.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	l.run("ip", "link", "set", name, "up")
}

// addNode makes a host for a node that is not started.
func (l *lab) addNode(name, address string) *node {
	l.t.Helper()
	n := &node{lab: l, name: name, address: address, ns: l.prefix + name, dir: filepath.Join(l.dir, name), expect: 3}
	n.socket = filepath.Join(l.dir, name+".sock")
	l.host(n.ns, address)
	l.t.Cleanup(n.cleanup)
	return n
}

// host makes a namespace on the bridge.
func (l *lab) host(ns, address string) {
	l.t.Helper()
	l.namespace(ns)
	l.link(l.bridge, ns, "eth0", address+"/24")
}

// namespace makes a host without links.
func (l *lab) namespace(ns string) {
	l.t.Helper()
	l.run("ip", "netns", "add", ns)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	l.run("ip", "-n", ns, "link", "set", "lo", "up")
}

// link connects a namespace to a bridge.
func (l *lab) link(bridge, ns, device string, addresses ...string) {
	l.t.Helper()
	far := ns + strings.TrimPrefix(device, "eth0")
	l.run("ip", "link", "add", far, "type", "veth", "peer", "name", device, "netns", ns)
	l.run("ip", "link", "set", far, "master", bridge, "up")
	l.run("ip", "-n", ns, "link", "set", device, "up")
	l.address(ns, device, addresses...)
}

func (l *lab) address(ns, device string, addresses ...string) {
	l.t.Helper()
	for _, address := range addresses {
		l.run("ip", "-n", ns, "addr", "add", address, "dev", device, "nodad")
	}
}

// addIPv6 gives the directors IPv6 addresses too.
func (l *lab) addIPv6() {
	l.t.Helper()
	for i, n := range l.nodes {
		l.run("ip", "-n", n.ns, "addr", "add", fmt.Sprintf("2001:db8::%d/64", 11+i), "dev", "eth0", "nodad")
	}
}

// cable plugs all links of a namespace in or pulls them out.
func (l *lab) cable(ns, state string) {
	l.t.Helper()
	for far := range strings.FieldsSeq(l.run("sh", "-c", "cd /sys/class/net && ls -d "+ns+" "+ns+"eth* 2>/dev/null || true")) {
		l.run("ip", "link", "set", far, state)
	}
}

func (l *lab) run(name string, args ...string) string {
	l.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// startAll starts every node at once.
func (l *lab) startAll() {
	l.t.Helper()
	for _, n := range l.nodes {
		n.start()
	}
}

// status is what the node says of the cluster.
func (n *node) status() (api.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return api.NewClient("unix://" + n.socket).Status(ctx)
}

// awaitLeader waits until every node that runs names the same leader and returns it.
func (l *lab) awaitLeader() *node {
	l.t.Helper()
	var leader *node
	l.await("one leader that every node knows", func() error {
		leader = nil
		for _, n := range l.nodes {
			if n.cmd == nil {
				continue
			}
			s, err := n.status()
			switch {
			case err != nil:
				return err
			case s.Leader == "":
				return fmt.Errorf("%s knows no leader: %+v", n.name, s)
			case leader != nil && leader.name != s.Leader:
				return fmt.Errorf("%s says %s leads, another says %s", n.name, s.Leader, leader.name)
			}
			if leader = l.node(s.Leader); leader == nil {
				return fmt.Errorf("unknown leader %q", s.Leader)
			}
		}
		return nil
	})
	return leader
}

func (l *lab) node(name string) *node {
	for _, n := range l.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// others returns the nodes but n.
func (l *lab) others(n *node) []*node {
	var others []*node
	for _, o := range l.nodes {
		if o != n {
			others = append(others, o)
		}
	}
	return others
}

// await asks again until check returns nil.
func (l *lab) await(what string, check func() error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			l.logs()
			l.t.Fatalf("no %s within %s: %v", what, patience, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// logs shows the end of every agent's log.
func (l *lab) logs() {
	for _, n := range l.nodes {
		log, _ := os.ReadFile(n.dir + ".log")
		l.t.Logf("log of %s:\n%s", n.name, log[max(0, len(log)-4000):])
	}
}

// inNamespace runs do on a thread that is in the network namespace ns; a process
// that do starts is there too.
func inNamespace(ns string, do func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := netns.GetFromName(ns)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return err
	}
	err = do()
	if back := netns.Set(home); back != nil {
		return back // the thread stays locked and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// awaitRoles waits until the leader, whoever that is by then, runs the master and every
// other director the backup daemon, and nothing else: one just elected may give
// leadership away, and the daemon of a former role runs on for a while.
func (l *lab) awaitRoles() (leader *node) {
	l.t.Helper()
	l.await("sync daemons of the present roles", func() error {
		if leader = l.awaitLeader(); strings.HasPrefix(leader.name, "w") {
			return errors.New("a witness leads")
		}
		for _, n := range l.nodes {
			want, count := "backup sync daemon", 1
			switch {
			case n.cmd == nil:
				continue
			case strings.HasPrefix(n.name, "w"):
				count = 0
			case n == leader:
				want = "master sync daemon"
			}
			if got := n.ipvsadm("-l", "--daemon"); strings.Count(got, "sync daemon") != count || count > 0 && !strings.Contains(got, want) {
				return fmt.Errorf("%s, led by %s: %s", n.name, leader.name, got)
			}
		}
		return nil
	})
	return leader
}
