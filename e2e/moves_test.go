package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// manyTable has a service at each of 250 IPv4 and 50 IPv6 addresses. It names the first and
// the last of one family, and the last of the other.
func manyTable() (table string, first4, last4, last6 string) {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range 250 {
		fmt.Fprintf(&b, "  - {service: \"tcp://10.9.1.%d:80\", destinations: [{address: \"10.9.0.21:80\", forward: droute}]}\n", i+1)
	}
	for i := range 50 {
		fmt.Fprintf(&b, "  - {service: \"tcp://[2001:db8::1:%x]:80\", destinations: [{address: \"[2001:db8::21]:80\", forward: droute}]}\n", i+1)
	}
	return b.String(), "10.9.1.1", "10.9.1.250", "2001:db8::1:32"
}

const manyConfig = "vip: {interface: eth0, allow: [10.9.0.0/16, \"2001:db8::/32\"]}\n"

// TestManyVIPs: 300 addresses move in the time of one.
func TestManyVIPs(t *testing.T) {
	l := newLab(t, "d1", "d2", "d3")
	l.addIPv6()
	for _, n := range l.nodes {
		n.config = manyConfig
	}
	l.startAll()
	table, first4, last4, last6 := manyTable()
	l.awaitLeader().mustApply(vipTable, "apply", "-f", "-")
	probes := []*probe{l.newProbe("10.9.0.100")}
	one := l.move(probes)
	probes[0].close()

	l.awaitLeader().mustApply(table, "apply", "-f", "-")
	probes = []*probe{l.newProbe(first4), l.newProbeFrom(2, last4, "eth0"), l.newProbeFrom(3, last6, "eth0")}
	many := l.move(probes)
	for _, event := range []string{"transfer", "SIGTERM", "kill -9"} {
		t.Logf("%s: one VIP %v, of 300 the first and the last of IPv4 and the last of IPv6 %v", event, one[event], many[event])
	}
}

// move moves the role of a lab in three ways and returns how long nobody accepted
// packets for each VIP that is probed.
func (l *lab) move(probes []*probe) map[string][]time.Duration {
	l.t.Helper()
	gaps := map[string][]time.Duration{}
	for _, event := range []string{"transfer", "SIGTERM", "kill -9"} {
		former := l.node(probes[0].awaitOwner(l, "nobody"))
		for _, p := range probes {
			p.awaitOwner(l, "nobody")
		}
		before := make([]int, len(probes))
		for i, p := range probes {
			before[i] = len(p.gaps())
		}
		switch event {
		case "transfer":
			former.mustHA("transfer")
		case "SIGTERM":
			former.kill(syscall.SIGTERM)
		case "kill -9":
			former.kill(syscall.SIGKILL)
		}
		for i, p := range probes {
			p.awaitOwner(l, former.name)
			p.check(event + " " + p.vip.String())
			if all := p.gaps(); len(all) > before[i] {
				gaps[event] = append(gaps[event], all[before[i]])
			}
		}
		l.comeBack(former)
	}
	return gaps
}

// comeBack starts a node that does not run, and waits until there is one leader, whoever
// that is on a busy machine, and until no kernel runs the daemon of a former role.
func (l *lab) comeBack(stopped *node) {
	l.t.Helper()
	if stopped.cmd == nil {
		stopped.start()
	}
	l.awaitVoters(l.awaitLeader(), "d1", "d2", "d3")
	l.awaitRoles()
}

func (p *probe) gaps() []time.Duration {
	gaps, _ := p.moves()
	return gaps
}

// TestRollingRestart stops and starts every director, one after the other.
func TestRollingRestart(t *testing.T) {
	l, p := vipLab(t, "")
	for _, n := range l.nodes {
		owner := p.awaitOwner(l, "nobody")
		n.kill(syscall.SIGTERM)
		if owner == n.name {
			p.awaitOwner(l, n.name)
		}
		l.comeBack(n)
	}
	p.check("rolling restart")
}

// TestOrderOfARole looks at the kernels all the time while the role moves, with sysctl
// backup_only: then no kernel forwards beside a backup daemon.
func TestOrderOfARole(t *testing.T) {
	l, p := vipLab(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for _, n := range l.nodes {
		l.run("ip", "netns", "exec", n.ns, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/vs/backup_only")
		w := n.watchKernel()
		watching.Go(func() { w.run(ctx) })
		defer func() { cancel(); watching.Wait(); w.close() }()
	}
	for i := range 6 {
		former := p.awaitOwner(l, "nobody")
		if i%2 == 0 {
			l.node(former).mustHA("transfer")
		} else {
			l.node(former).kill(syscall.SIGKILL)
		}
		p.awaitOwner(l, former)
		l.comeBack(l.node(former))
	}
	cancel()
	watching.Wait()
	p.check("moves")
}

// A kernelWatch reads the sync daemons and the fence of a node.
type kernelWatch struct {
	n     *node
	ipvs  *kernel.Client
	rules *nftables.Conn
}

func (n *node) watchKernel() *kernelWatch {
	n.lab.t.Helper()
	w := &kernelWatch{n: n}
	err := inNamespace(n.ns, func() (err error) {
		if w.ipvs, err = kernel.Dial(); err == nil {
			w.rules, err = nftables.New(nftables.AsLasting())
		}
		return err
	})
	if err != nil {
		n.lab.t.Fatalf("watch %s: %v", n.name, err)
	}
	return w
}

func (w *kernelWatch) close() { _, _ = w.ipvs.Close(), w.rules.CloseLasting() }

// run looks until ctx is done. What it reads at three moments bounds what was in
// between.
func (w *kernelWatch) run(ctx context.Context) {
	former := map[ipvs.DaemonState]bool{}
	wasOpen := false
	for ctx.Err() == nil {
		before, open, after := w.daemons(), w.open(), w.daemons()
		switch {
		case open && !before[ipvs.Master] && !after[ipvs.Master]:
			w.n.lab.t.Errorf("%s accepts packets without a master daemon", w.n.name)
		case open && before[ipvs.Backup] && after[ipvs.Backup]:
			w.n.lab.t.Errorf("%s accepts packets with a backup daemon", w.n.name)
		case wasOpen && open && !former[ipvs.Backup] && before[ipvs.Backup]:
			w.n.lab.t.Errorf("%s has started its backup daemon before it shut the fence", w.n.name)
		}
		former, wasOpen = after, open
		time.Sleep(time.Millisecond) // for the others
	}
}

func (w *kernelWatch) daemons() map[ipvs.DaemonState]bool {
	run := map[ipvs.DaemonState]bool{}
	daemons, err := w.ipvs.Daemons(context.Background())
	if err != nil {
		w.n.lab.t.Errorf("%s: %v", w.n.name, err)
	}
	for _, d := range daemons {
		run[d.State] = true
	}
	return run
}

// open reports whether the fence has a permit that is alive.
func (w *kernelWatch) open() bool {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "ipvs-ha"}
	elements, err := w.rules.GetSetElements(&nftables.Set{Table: table, Name: "permit", KeyType: nftables.TypeNFProto})
	return err == nil && len(elements) > 0
}
