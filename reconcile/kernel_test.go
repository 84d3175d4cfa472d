package reconcile

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// TestRealKernel has ipvsadm undo what the loop does, on a real kernel. It rewrites
// the host's IPVS table: run it with e2e/guest/run, as `make kernel` does.
func TestRealKernel(t *testing.T) {
	if os.Getenv("IPVS_HA_REAL_KERNEL") == "" {
		t.Skip("needs a real kernel: IPVS_HA_REAL_KERNEL is not set")
	}
	const iface = "eth9"
	create := "ip link add " + iface + " type dummy && ip addr add 10.77.0.1/24 dev " + iface + " && ip link set " + iface + " up"
	shell(t, create)
	k, err := kernel.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	dir := t.TempDir()
	l, stop := runLoop(t, Config{Kernel: k, DataDir: dir})
	defer func() { stop() }()
	d := desired(t, 1, "tcp://10.9.0.1:80,wrr,10.8.0.1,10.8.0.2*4", "fwmark6://7", "tcp://[2001:db8::1]:80,sh,2001:db8::2")
	d.Interface = iface
	l.Set(d)

	// expect waits until the kernel is as desired, with so much drift repaired.
	expect := func(what string, repaired uint64, state ipvs.DaemonState) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			changed := l.Changed()
			s := l.Status()
			if s.Converged && len(s.Daemons) == 1 && s.Daemons[0].State == state && s.DriftRepaired == repaired && s.AppliedRevision == d.Revision {
				break
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("%s: %+v, want %d repaired and a %s daemon", what, s, repaired, state)
			}
		}
		have, err := k.Table(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for s := range d.Table.Bare().Services() {
			if got := have.Service(s.Key); got == nil || !got.Equal(s) {
				t.Errorf("%s: %s is %+v, want %+v", what, s.Key, got, s)
			}
		}
	}
	now := func() {
		t.Helper()
		if err := l.Now(t.Context()); err != nil {
			t.Error(err)
		}
	}
	expect("start", 0, ipvs.Backup)

	shell(t, "ipvsadm -e -t 10.9.0.1:80 -r 10.8.0.1:80 -m -w 9; ipvsadm -a -t 10.9.0.1:80 -r 10.8.0.9:80 -m; ipvsadm -D -f 7 -6; ipvsadm -A -t 10.9.0.9:80; ipvsadm --stop-daemon backup")
	now()
	expect("edits by hand", 4, ipvs.Backup)
	if s := l.Status(); s.ForeignCount != 1 {
		t.Errorf("%d foreign services, want 1", s.ForeignCount)
	}
	shell(t, "ipvsadm -C")
	now()
	expect("ipvsadm -C", 10, ipvs.Backup)

	d.Revision, d.Role = 2, syncd.Active
	l.Set(d)
	expect("promotion", 10, ipvs.Master)
	d.Revision, d.Role = 3, syncd.Standby
	l.Set(d)
	expect("demotion", 10, ipvs.Backup)

	shell(t, "ip link del "+iface+" && "+create)
	now()
	expect("interface created anew", 11, ipvs.Backup)

	stop()
	if out := shell(t, "ipvsadm -Sn; ipvsadm -l --daemon"); strings.Count(out, "-A ") != 3 || !strings.Contains(out, "backup sync daemon") {
		t.Errorf("stopping the loop left\n%s", out)
	}
	l, stop = runLoop(t, Config{Kernel: k, DataDir: dir})
	d = desired(t, 4, "tcp://10.9.0.1:80,wrr,10.8.0.1,10.8.0.2*4")
	d.Interface = iface
	l.Set(d)
	expect("the next process", 0, ipvs.Backup)
	if out := shell(t, "ipvsadm -Sn"); strings.Count(out, "-A ") != 1 {
		t.Errorf("what was deleted while the loop was away is still there:\n%s", out)
	}
}

func shell(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}
