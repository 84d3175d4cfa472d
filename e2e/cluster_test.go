package e2e_test

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const smallTable = `
services:
  - service: tcp://10.9.0.100:80
    scheduler: wrr
    destinations:
      - {address: "10.9.0.21:80", forward: droute, weight: 1}
      - {address: "10.9.0.22:80", forward: droute, weight: 2}
`

const smallTableSaved = `-A -t 10.9.0.100:80 -s wrr
-a -t 10.9.0.100:80 -r 10.9.0.21:80 -g -w 1
-a -t 10.9.0.100:80 -r 10.9.0.22:80 -g -w 2
`

// TestDemo runs the demonstration, which checks what it shows, with three directors
// and with two and a witness.
func TestDemo(t *testing.T) {
	for _, variant := range []string{"", "witness"} {
		t.Run(variant, func(t *testing.T) {
			out, err := exec.Command("./demo", variant).CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestTwoDirectorsAndAWitness(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "w1")
	l.slow()
	l.startAll()
	leader := l.awaitRoles() // a witness that was elected gives leadership away
	standby := l.node("d1")
	if leader == standby {
		standby = l.node("d2")
	}
	l.node("w1").mustApply(smallTable, "apply", "-f", "-")
	leader.awaitKernel(smallTableSaved)
	standby.awaitKernel(smallTableSaved)
	if got := l.node("w1").ipvsadm("-Sn"); got != "" {
		t.Errorf("the witness's kernel has a table:\n%s", got)
	}

	leader.kill(syscall.SIGKILL)
	l.await("new leader", func() error {
		if s, err := standby.status(); err != nil || s.Leader != standby.name {
			return fmt.Errorf("status %+v, %v", s, err)
		}
		return nil
	})
	standby.awaitDaemons("master")
	standby.mustHA("destination", "set", "tcp://10.9.0.100:80", "10.9.0.22:80", "--weight", "5")
	changed := strings.Replace(smallTableSaved, "-w 2", "-w 5", 1)
	standby.awaitKernel(changed)

	leader.start()
	leader.awaitKernel(changed)
	leader.awaitDaemons("backup")
	l.awaitRoles()
}

func TestWitnessNeedsNoRoot(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "w1")
	w := l.node("w1")
	w.uid = 65534
	l.startAll()
	l.await("leader that is a director", func() error {
		if leader := l.awaitLeader(); leader.name == "w1" {
			return fmt.Errorf("the witness leads")
		}
		return nil
	})
	w.mustHA("members")
}

func TestAllStartAtOnce(t *testing.T) {
	for round := range 20 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			l := newLab(t, "d1", "d2", "d3")
			l.startAll()
			l.awaitLeader()
			for _, n := range l.nodes {
				s, err := n.status()
				if err != nil || len(s.Nodes) != 3 {
					t.Errorf("%s sees %d nodes, want 3 (%v): %+v", n.name, len(s.Nodes), err, s)
				}
			}
			l.awaitRoles()
		})
	}
}

// TestFourStartAtOnce starts one more node than the cluster expects.
func TestFourStartAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3", "d4")
	l.startAll()
	l.awaitLeader()
	l.await("four voters", func() error {
		s, err := l.nodes[0].status()
		if err != nil {
			return err
		}
		voters := 0
		for _, n := range s.Nodes {
			if n.Voter {
				voters++
			}
		}
		if voters != 4 || len(s.Nodes) != 4 {
			return fmt.Errorf("%d voters of %d nodes", voters, len(s.Nodes))
		}
		return nil
	})
	l.nodes[3].mustApply(smallTable, "apply", "-f", "-")
	for _, n := range l.nodes {
		n.awaitKernel(smallTableSaved)
	}
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	l.slow()
	l.startAll()
	leader := l.awaitLeader()
	target := l.others(leader)[0]
	l.others(leader)[1].mustHA("transfer", target.name)
	l.await("leadership of "+target.name, func() error {
		if got := l.awaitLeader(); got != target {
			return fmt.Errorf("%s leads", got.name)
		}
		return nil
	})
	l.awaitRoles()
	if out, code := target.ha("transfer", "nobody"); code != 1 || !strings.Contains(out, "nobody") {
		t.Errorf("transfer to an unknown node: exit %d, %s", code, out)
	}
}

// TestRestartDoesNotRollBack stops a node, changes the table, and starts the node
// while it can hear nobody: its kernel must keep what it holds.
func TestRestartDoesNotRollBack(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(smallTable, "apply", "-f", "-")
	n := l.others(leader)[0]
	n.awaitKernel(smallTableSaved)
	if out, code := n.ha("get", "--stale", "-o", "ipvsadm"); code != 0 || !strings.Contains(out, smallTableSaved) {
		t.Errorf("get --stale: exit %d: %s", code, out)
	}
	n.kill(syscall.SIGTERM)
	if got := n.ipvsadm("-Sn"); got != smallTableSaved {
		t.Fatalf("stopping the agent changed the kernel:\n%s", got)
	}
	n.ipvsadm("-e", "-t", "10.9.0.100:80", "-r", "10.9.0.22:80", "-g", "-w", "7")
	byHand := strings.Replace(smallTableSaved, "-w 2", "-w 7", 1)
	l.run("ip", "link", "set", n.ns, "down")
	n.start()
	l.await("word that it waits for a leader", func() error {
		s, err := n.status()
		if err != nil {
			return err
		}
		for _, node := range s.Nodes {
			for _, e := range node.Errors {
				if node.Name == n.name && strings.Contains(e.Message, "caught up") {
					return nil
				}
			}
		}
		return fmt.Errorf("%+v", s)
	})
	if out, code := n.ha("get", "--stale"); code != 1 || !strings.Contains(out, "knows no table yet") {
		t.Errorf("get --stale before it has caught up: exit %d, not an empty table: %s", code, out)
	}
	if out, code := n.ha("get", "--timeout", "3s"); code != 1 {
		t.Errorf("get without a leader: exit %d: %s", code, out)
	}
	if got := n.ipvsadm("-Sn"); got != byHand {
		t.Errorf("a node that hears nobody wrote to its kernel:\n%s", got)
	}
	l.run("ip", "link", "set", n.ns, "up")
	n.awaitKernel(smallTableSaved)
}
