package e2e_test

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
)

// runs is how often each fault strikes, and whether that is a campaign, which
// IPVS_HA_RUNS asks for.
func runs(t *testing.T) (n int, campaign bool) {
	t.Helper()
	value := os.Getenv("IPVS_HA_RUNS")
	if value == "" {
		return 3, false
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("IPVS_HA_RUNS=%s: must be a number of runs", value)
	}
	return n, true
}

// TestOneOwner has every fault strike the owner and expects that no packet is ever
// accepted by two.
func TestOneOwner(t *testing.T) {
	n, campaign := runs(t)
	for _, f := range faults {
		if campaign && f.apart {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				report(t, f.name, ownerLab(t).suffer(t, f, n))
			})
		}
	}
	t.Run("one after the other", func(t *testing.T) {
		if campaign {
			t.Parallel()
		}
		var l *lab
		for _, f := range faults {
			switch {
			case f.apart || f.long && !campaign:
				continue
			case l == nil || t.Failed():
				l = ownerLab(t)
			}
			t.Run(f.name, func(t *testing.T) { report(t, f.name, l.suffer(t, f, n)) })
			if t.Failed() {
				l.killAll()
			}
		}
	})
}

// ownerLab is a vipLab with an IPv6 VIP, which is watched too, but not as closely: the
// probes keep an emulated kernel busy.
func ownerLab(t *testing.T, cluster ...func(*lab) string) *lab {
	t.Helper()
	l, _ := vipLab(t, "", append(cluster, func(l *lab) string {
		l.addIPv6()
		return ""
	})...)
	l.awaitLeader().mustHA("service", "add", "tcp://[2001:db8::100]:80")
	l.probe6 = l.newProbeEvery(5*probeInterval, 2, "2001:db8::100", "eth0")
	l.probe6.awaitOwner(l, "nobody")
	return l
}

// TestProbeSeesTwoOwners: without the fence, an owner whose agent is dead or stopped
// keeps its address.
func TestProbeSeesTwoOwners(t *testing.T) {
	n := 1
	_, campaign := runs(t)
	if campaign {
		n = 10
	}
	l, _ := vipLab(t, ", fence: off")
	for _, f := range []fault{
		{name: "kill -9", strike: killed, moves: true, lasts: time.Second},
		{name: "SIGSTOP for 3 s", strike: stopped, moves: true, lasts: 3 * time.Second},
		{name: "cut off from the others", strike: cutFromAll(true, true), moves: true, alive: true},
		{name: "cannot hear the others", strike: cutFromAll(true, false), moves: true, alive: true},
	} {
		if f.alive && !campaign {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			o := l.suffer(t, f, n)
			results.add(f.name+", `fence: off`", o)
			if o.overlap == 0 && !f.alive {
				t.Error("the probe has not seen two owners")
			}
		})
	}
	if campaign {
		compareKeepalived(t, n)
	}
}

// compareKeepalived has some faults strike a pair of keepalived's.
func compareKeepalived(t *testing.T, n int) {
	k := newKeepalived(t, "1")
	k.start()
	k.probe = k.newProbe("10.9.0.100")
	for _, f := range []struct {
		name   string
		strike func(owner *node) (heal func())
	}{
		{"kill -9", func(o *node) func() { k.strike(kill9, o); return func() { k.heal(kill9, o) } }},
		{"SIGSTOP for 5 s", func(o *node) func() { k.strike(sigstop, o); return func() { k.heal(sigstop, o) } }},
		{"cut off from the other", func(o *node) func() {
			mend := cutFromAll(true, true)(k.lab, o)
			return func() { mend(); k.awaitWhole() }
		}},
	} {
		t.Run("keepalived "+f.name, func(t *testing.T) {
			k.t, k.probe.t = t, t
			k.probe.forget()
			for range n {
				heal := sync.OnceFunc(f.strike(k.owner()))
				defer heal()
				time.Sleep(5 * time.Second) // keepalived takes over after 3.6 s
				heal()
			}
			gaps, overlap := k.probe.moves()
			results.add("keepalived: "+f.name, tally{runs: n, gaps: gaps, overlap: overlap})
			if overlap == 0 {
				t.Error("the probe has not seen two owners")
			}
		})
	}
}

// suffer has the fault strike the owner n times and returns what the probe saw.
func (l *lab) suffer(t *testing.T, f fault, n int) tally {
	t.Helper()
	l.t, l.probe.t = t, t
	l.settle()
	l.probe.forget()
	if l.probe6 != nil {
		l.probe6.t = t
		l.probe6.forget()
	}
	for range n {
		l.sufferOnce(f)
	}
	gaps, overlap := l.probe.moves()
	if l.probe6 != nil {
		gaps6, overlap6 := l.probe6.moves()
		if f.moves && len(gaps6) == 0 {
			t.Errorf("%s: the IPv6 VIP has not moved", f.name)
		}
		overlap += overlap6
	}
	if f.stays && len(gaps) > 0 {
		t.Errorf("%s: the role has moved %d times", f.name, len(gaps))
		l.logs()
	}
	return tally{runs: n, gaps: gaps, overlap: overlap}
}

func (l *lab) sufferOnce(f fault) {
	l.t.Helper()
	owner := l.settle()
	heal := sync.OnceFunc(f.strike(l, owner))
	defer heal()
	time.Sleep(f.lasts)
	if f.moves {
		l.probe.awaitOwner(l, owner.name)
	}
	heal()
	l.settle()
}

// settle waits until all nodes are there, agree on a leader, and it owns the VIP.
func (l *lab) settle() (owner *node) {
	l.t.Helper()
	l.await("one owner, whom all nodes follow", func() error {
		owner = nil
		for _, n := range l.nodes {
			s, err := n.status()
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			leader := l.node(s.Leader)
			if leader == nil || owner != nil && owner != leader {
				return fmt.Errorf("%s says that %q leads", n.name, s.Leader)
			}
			owner = leader
			for _, member := range s.Nodes {
				if member.State == api.StateUnreachable || !member.Voter {
					return fmt.Errorf("%s says that %s is %s, voter: %t", n.name, member.Name, member.State, member.Voter)
				}
			}
		}
		if o := l.probe.owner(); o != owner.name {
			return fmt.Errorf("%q owns the VIP, %s leads", o, owner.name)
		}
		return nil
	})
	return owner
}

func (l *lab) killAll() {
	for _, n := range l.nodes {
		n.cleanup()
	}
}
