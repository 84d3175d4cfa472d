package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const vipTable = `
services:
  - service: tcp://10.9.0.100:80
    scheduler: rr
    destinations:
      - {address: "10.9.0.21:80", forward: droute}
`

// vipLab is a cluster of three whose leader owns 10.9.0.100, and a probe of that. The
// configuration has more keys of vip, and of cluster those that cluster returns.
func vipLab(t testing.TB, config string, cluster ...func(*lab) string) (*lab, *probe) {
	t.Helper()
	l := newLab(t, "d1", "d2", "d3")
	more := ""
	for _, f := range cluster {
		more += f(l)
	}
	for _, n := range l.nodes {
		n.config, n.cluster = "vip: {interface: eth0"+config+"}\n", more
		n.ownDisk()
	}
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(vipTable, "apply", "-f", "-")
	l.probe = l.newProbe("10.9.0.100")
	l.settle()
	return l, l.probe
}

// check fails when two directors have taken packets at once, and tells the gaps.
func (p *probe) check(what string) {
	p.t.Helper()
	gaps, overlap := p.moves()
	p.t.Logf("%s: nobody accepted for %v; %d packets accepted by two", what, gaps, overlap)
	if overlap > 0 {
		p.t.Errorf("%s: %d packets were taken while another director took them too", what, overlap)
	}
}

func TestVIPFollowsTheLeader(t *testing.T) {
	l, p := vipLab(t, "")
	for _, n := range l.nodes {
		has := strings.Contains(l.run("ip", "-n", n.ns, "addr", "show", "eth0"), "10.9.0.100/32")
		if owner := p.owner() == n.name; has != owner {
			t.Errorf("%s has the address: %t, it is the owner: %t", n.name, has, owner)
		}
	}
	former := p.awaitOwner(l, "nobody")
	l.node(former).mustHA("transfer")
	next := p.awaitOwner(l, former)
	p.check("transfer")

	l.node(next).kill(syscall.SIGTERM)
	third := p.awaitOwner(l, next)
	p.check("SIGTERM")
	l.await("no address on the one that has stopped", func() error {
		if out := l.run("ip", "-n", l.node(next).ns, "addr", "show", "eth0"); strings.Contains(out, "10.9.0.100") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	l.node(next).start()
	l.awaitVoters(l.node(third), "d1", "d2", "d3")
	if owner := p.awaitOwner(l, "nobody"); owner != third {
		t.Errorf("the owner is %q after %s came back, was %s", owner, next, third)
	}
	p.check("return")
}

// TestReleaseWithoutAnAgent: what kill -9 leaves behind goes by the operator's word.
func TestReleaseWithoutAnAgent(t *testing.T) {
	l, p := vipLab(t, "")
	n := l.node(p.awaitOwner(l, "nobody"))
	n.awaitDaemons("master") // the backup daemon of a new owner, which release leaves, has stopped
	n.kill(syscall.SIGKILL)
	for range 2 { // nothing to release is no error
		l.run("ip", "netns", "exec", n.ns, os.Getenv("IPVS_HA_BIN"), "release", "--config", n.dir+".yaml")
	}
	if out := l.run("ip", "-n", n.ns, "addr", "show", "eth0"); strings.Contains(out, "10.9.0.100") {
		t.Errorf("the address is still there:\n%s", out)
	}
	if out := l.run("ip", "netns", "exec", n.ns, "nft", "list", "tables"); strings.Contains(out, "ipvs-ha") {
		t.Errorf("the fence is still there:\n%s", out)
	}
	n.awaitDaemons()
	if got := n.ipvsadm("-Sn"); !strings.Contains(got, "-A -t 10.9.0.100:80") {
		t.Errorf("the table is gone:\n%s", got)
	}
	p.awaitOwner(l, n.name)
	p.check("kill -9 and release")
}

// TestFenceIsRebuilt flushes the owner's ruleset.
func TestFenceIsRebuilt(t *testing.T) {
	l, p := vipLab(t, "")
	owner := l.node(p.awaitOwner(l, "nobody"))
	l.run("ip", "netns", "exec", owner.ns, "nft", "flush", "ruleset")
	l.run("ip", "-n", owner.ns, "addr", "del", "10.9.0.100/32", "dev", "eth0")
	l.await("fence and address", func() error {
		if out := l.run("ip", "netns", "exec", owner.ns, "nft", "list", "ruleset"); !strings.Contains(out, "10.9.0.100") {
			return fmt.Errorf("%s", out)
		}
		if out := l.run("ip", "-n", owner.ns, "addr", "show", "eth0"); !strings.Contains(out, "10.9.0.100") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	former := owner.name
	_ = owner.cmd.Process.Signal(syscall.SIGSTOP)
	p.awaitOwner(l, former)
	time.Sleep(500 * time.Millisecond) // and the former one takes no packets in all this time
	_ = owner.cmd.Process.Signal(syscall.SIGCONT)
	p.check("SIGSTOP after a flush")
}
