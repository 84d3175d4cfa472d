package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
)

// fitnessLab is a cluster of three whose VIP is on an interface of its own, so that
// this can fail alone. Nothing but obstacle speaks against its directors.
func fitnessLab(t *testing.T, config, obstacle string) (*lab, *probe) {
	t.Helper()
	l := newLab(t, "d1", "d2", "d3")
	l.slow() // not how quick, but who
	for _, n := range l.nodes {
		l.run("ip", "link", "add", n.ns+"v", "type", "veth", "peer", "name", "eth1", "netns", n.ns)
		l.run("ip", "link", "set", n.ns+"v", "master", l.bridge, "up")
		l.run("ip", "-n", n.ns, "link", "set", "eth1", "up")
		// Else eth1 answers for the addresses of eth0, and the cluster talks over it.
		l.run("ip", "netns", "exec", n.ns, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/eth1/arp_ignore")
		n.config = "vip: {interface: eth1, allow: [10.9.0.0/24]}\n" + config
	}
	l.startAll()
	l.awaitLeader().mustApply(vipTable, "apply", "-f", "-")
	p := l.newProbeAt("10.9.0.100", "eth1")
	p.awaitOwner(l, "nobody")
	for _, n := range l.nodes {
		l.awaitEligible(n, obstacle)
	}
	return l, p
}

// sees is what one node says of another.
func (n *node) sees(of *node) (api.NodeStatus, error) {
	s, err := n.status()
	i := slices.IndexFunc(s.Nodes, func(o api.NodeStatus) bool { return o.Name == of.name })
	if err != nil || i < 0 {
		return api.NodeStatus{}, fmt.Errorf("%s says nothing of %s: %v", n.name, of.name, err)
	}
	return s.Nodes[i], nil
}

// awaitEligible waits until n says of itself that it is eligible, or why not.
func (l *lab) awaitEligible(n *node, obstacle string) {
	l.t.Helper()
	l.await(fmt.Sprintf("word of %s that it is eligible but for %q", n.name, obstacle), func() error {
		s, err := n.sees(n)
		if err == nil && (s.Eligible != (obstacle == "") || !strings.Contains(strings.Join(s.Obstacles, "; "), obstacle)) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
}

// stays fails when the owner changes within a while that is longer than what has
// become better must last to count.
func (p *probe) stays(l *lab, owner string, d time.Duration) {
	p.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if now := p.owner(); now != owner && now != "" {
			l.logs()
			p.t.Fatalf("%s has the VIP, was to stay with %s", now, owner)
		}
	}
}

// never fails when one of the nodes has accepted a packet since a time.
func (p *probe) never(since time.Time, nodes ...*node) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.accepts {
		for _, n := range nodes {
			if a.director == n.name && a.sent.After(since) {
				p.t.Fatalf("%s has accepted packets", n.name)
			}
		}
	}
}

// TestLinkOfVIPsDown: the active director whose VIP link goes down hands over, does
// not come back, and one whose link is down does not succeed.
func TestLinkOfVIPsDown(t *testing.T) {
	t.Parallel()
	l, p := fitnessLab(t, "", "")
	first := l.node(p.awaitOwner(l, "nobody"))
	l.run("ip", "-n", first.ns, "link", "set", "eth1", "down")
	second := l.node(p.awaitOwner(l, first.name))
	p.check("link down")
	l.awaitEligible(first, "the interface of VIPs is down: eth1")
	var third *node
	for _, n := range l.others(first) {
		if n != second {
			third = n
		}
	}
	if out, code := second.ha("transfer", first.name); code != 1 || !strings.Contains(out, "the interface of VIPs is down: eth1") {
		t.Errorf("transfer to it: exit %d, %s", code, out)
	}
	if out := second.mustHA("status"); !strings.Contains(out, first.name+": not eligible: the interface of VIPs is down: eth1") {
		t.Errorf("status:\n%s", out)
	}
	second.mustHA("prefer", first.name, "100")
	second.kill(syscall.SIGKILL)
	if owner := p.awaitOwner(l, second.name); owner != third.name {
		t.Errorf("%s succeeds, want %s", owner, third.name)
	}
	l.run("ip", "-n", first.ns, "link", "set", "eth1", "up")
	l.awaitEligible(first, "")
	p.stays(l, third.name, 4*time.Second)
	p.check("link down, kill -9 of the next")
}

// TestDrainedDirectorsAreNotActive while another can be.
func TestDrainedDirectorsAreNotActive(t *testing.T) {
	t.Parallel()
	l, p := fitnessLab(t, "", "")
	first := l.node(p.awaitOwner(l, "nobody"))
	drained := l.others(first)[0]
	first.mustHA("drain", drained.name)
	first.mustHA("prefer", drained.name, "100")
	since := time.Now()
	first.kill(syscall.SIGKILL)
	second := l.node(p.awaitOwner(l, first.name))
	first.start()
	l.awaitVoters(second, "d1", "d2", "d3")
	l.awaitEligible(first, "")
	p.never(since, drained)
	if owner := p.owner(); owner != second.name {
		t.Errorf("%s took over from %s when it came back", owner, second.name)
	}
	p.check("kill -9 with a drained standby")

	began := time.Now()
	second.mustHA("drain", second.name)
	t.Logf("drain took %v", time.Since(began))
	if owner := p.awaitOwner(l, second.name); owner != first.name {
		t.Errorf("the VIP went to %s, want %s", owner, first.name)
	}
	p.check("drain")
	if out, code := first.ha("drain", first.name, "--timeout", "3s"); code != 4 || !strings.Contains(out, drained.name+": drained by the operator") {
		t.Errorf("drain of the last: exit %d, %s", code, out)
	}
	p.stays(l, first.name, time.Second)
	first.mustHA("undrain", drained.name) // the others stay so
	l.await("VIP on the one that may have it", func() error {
		if owner := p.owner(); owner != drained.name {
			return fmt.Errorf("owner %q", owner)
		}
		return nil
	})
	p.check("drain of all")
	if out, code := first.ha("drain", "nobody"); code != 1 || !strings.Contains(out, "nobody") {
		t.Errorf("drain of an unknown node: exit %d, %s", code, out)
	}
}

// TestReturningAndColdDirectors: one that has just started is passed over, and takes
// nothing back.
func TestReturningAndColdDirectors(t *testing.T) {
	t.Parallel()
	l, p := fitnessLab(t, "", "")
	first := l.node(p.awaitOwner(l, "nobody"))
	returning := l.others(first)[0]
	first.mustHA("prefer", returning.name, "100")
	returning.kill(syscall.SIGTERM)
	returning.ipvsadm("--stop-daemon", "backup")
	returning.start()
	l.awaitEligible(returning, "it has not had time to learn the connections since it started or was cut off")
	l.await("nothing else against it", func() error {
		s, err := first.sees(returning)
		if err == nil && (len(s.Obstacles) != 1 || !s.Voter) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	since := time.Now()
	first.kill(syscall.SIGKILL)
	second := p.awaitOwner(l, first.name)
	p.never(since, returning)
	p.check("kill -9 with a cold standby")
	first.start()
	l.awaitEligible(returning, "")
	l.awaitEligible(first, "")
	p.stays(l, second, 4*time.Second)
	p.check("return")
}

// TestTrackedGateway: who alone loses it hands over; when all lose it nothing moves.
func TestTrackedGateway(t *testing.T) {
	t.Parallel()
	l, p := fitnessLab(t, "track: [{gateway: 10.9.0.60}, {interface: eth0}]\n", "gateway 10.9.0.60 does not answer")
	first := l.node(p.awaitOwner(l, "nobody"))
	p.stays(l, first.name, 4*time.Second)
	l.host(l.prefix+"g", "10.9.0.60")
	for _, n := range l.nodes {
		l.awaitEligible(n, "")
	}
	p.stays(l, first.name, 4*time.Second)
	l.run("ip", "-n", first.ns, "route", "add", "blackhole", "10.9.0.60")
	p.awaitOwner(l, first.name)
	l.awaitEligible(first, "gateway 10.9.0.60 does not answer")
	p.check("gateway lost")
}
