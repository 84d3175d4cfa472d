package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPairHoldsItsVIPs cuts two directors off from each other: the owner stays it, and
// leads again when the other one is back.
func TestPairHoldsItsVIPs(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2")
	for _, n := range l.nodes {
		n.expect = 2
		n.cluster = ", allow_two_voters: true, on_quorum_loss: hold"
		n.config = "vip: {interface: eth0}\n"
	}
	l.startAll()
	l.awaitLeader().mustApply(vipTable, "apply", "-f", "-")
	p := l.newProbe("10.9.0.100")
	owner := l.node(p.awaitOwner(l, "nobody"))
	other := l.others(owner)[0]
	holds := func() error {
		s, err := owner.status()
		if err == nil && !strings.Contains(fmt.Sprint(s.Warnings), owner.name+" holds the VIPs without a quorum") {
			err = fmt.Errorf("%v", s.Warnings)
		}
		return err
	}
	for name, strike := range map[string]func() (heal func()){
		"cut off": func() func() { return l.cut(apart(owner, true, true, other)...) },
		"kill -9": func() func() { return killed(l, other) },
	} {
		heal := strike()
		l.await("word that it holds the VIPs", holds)
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); { // many leases
			if now := p.owner(); now != owner.name && now != "" {
				t.Fatalf("%s: %s is the owner", name, now)
			}
			if err := holds(); err != nil {
				t.Fatalf("%s: it holds no more: %v", name, err)
			}
		}
		p.awaitOwner(l, "nobody")
		owner.awaitEvent(owner.name, "holding", "without a quorum")
		heal()
		if leader := l.awaitLeader(); leader != owner {
			t.Errorf("%s: %s leads afterwards, %s was the owner", name, leader.name, owner.name)
		}
		l.awaitVoters(owner, "d1", "d2")
		other.mustHA("service", "add", "fwmark://7", "--scheduler", "rr")
		other.mustHA("service", "delete", "fwmark://7")
		p.check(name)
	}
	owner.awaitEvent(owner.name, "quorum", "any more")
}
