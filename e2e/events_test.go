package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/api"
)

// events is what the node says has happened.
func (n *node) events(args ...string) (api.Events, error) {
	out, code := n.ha(append([]string{"events", "-o", "json"}, args...)...)
	if code != 0 {
		return api.Events{}, errors.New(out)
	}
	var events api.Events
	err := json.Unmarshal([]byte(out), &events)
	return events, err
}

// awaitEvent waits until n tells of an event of that kind on a node, with these words
// in its cause, and returns the newest.
func (n *node) awaitEvent(on, kind, words string) (found api.Event) {
	n.lab.t.Helper()
	n.lab.await(fmt.Sprintf("event %s on %s: %s", kind, on, words), func() error {
		events, err := n.events()
		for _, e := range slices.Backward(events.Events) {
			if e.Node == on && e.Kind == kind && strings.Contains(e.Cause, words) {
				found = e
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%+v", events))
	})
	n.lab.t.Logf("%s %s: term %d; %s; %s (total %d ms)", found.Node, found.Kind, found.Term, found.Cause, found.StepsText(), found.TotalMS)
	return found
}

// checkSteps fails unless the event has exactly these steps and they add up.
func checkSteps(t *testing.T, e api.Event, want ...string) {
	t.Helper()
	var names []string
	var sum int64
	for _, s := range e.Steps {
		names = append(names, s.Name)
		sum += s.MS
	}
	slices.Sort(names) // which of some comes first is chance
	slices.Sort(want)
	if !slices.Equal(names, want) || sum != e.TotalMS || e.From == "" || e.TotalMS == 0 {
		t.Errorf("steps %q from %q, %d ms of %d; want %q", names, e.From, sum, e.TotalMS, want)
	}
}

// slowly is for tests of other things than speed: busy machines do not lose a lease.
func slowly(*lab) string {
	return ", timing: {lease: 900ms, heartbeat: 2100ms, election: 2100ms, leader_lease: 900ms, transport: 2100ms}"
}

// slow has the nodes started slowly.
func (l *lab) slow() {
	for _, n := range l.nodes {
		n.cluster = slowly(l)
	}
}

func TestEventsTellWhyTheRoleMoved(t *testing.T) {
	t.Parallel()
	l, p := vipLab(t, "", slowly) // not how quick, but why
	former := p.awaitOwner(l, "nobody")
	l.node(former).kill(syscall.SIGKILL)
	next := l.node(p.awaitOwner(l, former))
	e := next.awaitEvent(next.name, "active", "succeeded "+former+", whose lease ended; this node called the election")
	checkSteps(t, e, "stood for election", "elected", "lease granted", "daemons ready", "VIPs up")
	events, err := next.events()
	if err != nil || len(events.Silent) != 1 || events.Silent[0].Node != former {
		t.Errorf("with %s down, its events are missing: %+v, %v", former, events.Silent, err)
	}
	l.node(former).start()
	l.awaitVoters(next, "d1", "d2", "d3")
	l.awaitEligible(l.node(former), "")

	l.awaitLeader().mustHA("transfer", former)
	p.awaitOwner(l, next.name)
	e = l.node(former).awaitEvent(former, "active", next.name+" gave leadership to this node: an operator asked for it")
	checkSteps(t, e, "elected", "lease ended", "lease granted", "daemons ready", "VIPs up")
	e = l.node(former).awaitEvent(next.name, "standby", "gave its lease up for a transfer to "+former+": an operator asked for it")
	checkSteps(t, e, "fence shut", "VIPs gone")

	owner := l.node(former)
	l.run("ip", "netns", "exec", owner.ns, "nft", "flush", "ruleset")
	next.awaitEvent(former, "fence-rebuilt", "somebody removed the fence")
	l.await("address-restored", func() error { // not while a slow machine has let the lease lapse
		_ = exec.Command("ip", "-n", owner.ns, "addr", "del", "10.9.0.100/32", "dev", "eth0").Run()
		events, err := next.events("--node", former)
		if !slices.ContainsFunc(events.Events, func(e api.Event) bool {
			return e.Kind == "address-restored" && strings.Contains(e.Cause, "10.9.0.100")
		}) {
			return errors.Join(err, fmt.Errorf("%+v", events))
		}
		return nil
	})

	_ = owner.cmd.Process.Signal(syscall.SIGSTOP)
	third := l.node(p.awaitOwner(l, former))
	_ = owner.cmd.Process.Signal(syscall.SIGCONT)
	third.awaitEvent(former, "standby", "did not ask in time")
	l.awaitEligible(owner, "") // it was stopped for long enough to count as cold

	third.kill(syscall.SIGTERM)
	fourth := l.node(p.awaitOwner(l, third.name))
	fourth.awaitEvent(fourth.name, "active", third.name+" gave leadership to this node: "+third.name+" stops")
	if only, err := fourth.events("--node", fourth.name); err != nil || slices.ContainsFunc(only.Events, func(e api.Event) bool { return e.Node != fourth.name }) {
		t.Errorf("--node %s: %+v, %v", fourth.name, only, err)
	}
	p.check("all of it")
}
