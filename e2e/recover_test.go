package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestRecoverFromALostMajority loses two of three directors, has the third go on alone,
// and lets one of the others in again.
func TestRecoverFromALostMajority(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	l.awaitLeader().mustApply(smallTable, "apply", "-f", "-")
	survivor, old := l.node("d1"), l.node("d2")
	for _, n := range l.nodes {
		n.awaitKernel(smallTableSaved)
	}
	l.await("the members' names", func() error {
		s, err := survivor.status()
		if err == nil && len(s.Nodes) != 3 {
			err = fmt.Errorf("%+v", s.Nodes)
		}
		return err
	})
	old.kill(syscall.SIGKILL)
	l.node("d3").kill(syscall.SIGKILL)

	for _, step := range []struct {
		args   string
		failed bool
		says   string
	}{
		{"--dead d2,d3 --yes", true, "another process uses it"},
		{"--dead d2 --yes", true, "members remove"},
		{"--dead d2,d3", false, "Nothing was changed"},
		{"--dead d2,d3 --yes", false, "members after   d1,"},
	} {
		args := append([]string{"recover", "--config", survivor.dir + ".yaml"}, strings.Fields(step.args)...)
		out, err := exec.Command(os.Getenv("IPVS_HA_BIN"), args...).CombinedOutput()
		if (err != nil) != step.failed || !strings.Contains(string(out), step.says) {
			t.Fatalf("%v: %v, want it to say %q\n%s", args, err, step.says, out)
		}
		survivor.kill(syscall.SIGKILL) // after the first
	}
	survivor.start()
	l.awaitLeader()
	survivor.mustHA("destination", "set", "tcp://10.9.0.100:80", "10.9.0.22:80", "--weight", "5")
	changed := strings.Replace(smallTableSaved, "-w 2", "-w 5", 1)
	survivor.awaitKernel(changed)
	survivor.awaitDaemons("master")

	old.start()
	l.await("word that the cluster was recovered without it", func() error {
		s, err := old.status()
		if err == nil && !strings.Contains(fmt.Sprint(s.Nodes), "the cluster was recovered from node d1") {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	old.kill(syscall.SIGKILL)
	old.wipe()
	old.start()
	l.awaitVoters(survivor, "d1", "d2")
	old.awaitKernel(changed)
}
