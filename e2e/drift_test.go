package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestDriftIsRepaired does to one director what hands do, and expects it undone and
// counted.
func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	l.slow()
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(smallTable, "apply", "-f", "-")
	for _, n := range l.nodes {
		n.awaitKernel(smallTableSaved)
	}
	leader = l.awaitRoles()
	n := l.others(leader)[0]

	const foreign = "-A -u 10.9.0.200:53 -s rr\n-a -u 10.9.0.200:53 -r 10.9.0.31:53 -g -w 1\n"
	n.ipvsadm("-A", "-u", "10.9.0.200:53", "-s", "rr")
	n.ipvsadm("-a", "-u", "10.9.0.200:53", "-r", "10.9.0.31:53", "-g")
	both := smallTableSaved + foreign

	tests := []struct {
		name string
		args []string
		want string
	}{
		{"edited weight", []string{"-e", "-t", "10.9.0.100:80", "-r", "10.9.0.21:80", "-g", "-w", "9"}, both},
		{"edited scheduler", []string{"-E", "-t", "10.9.0.100:80", "-s", "rr"}, both},
		{"added destination", []string{"-a", "-t", "10.9.0.100:80", "-r", "10.9.0.29:80", "-g"}, both},
		{"deleted destination", []string{"-d", "-t", "10.9.0.100:80", "-r", "10.9.0.21:80"}, both},
		{"deleted service", []string{"-D", "-t", "10.9.0.100:80"}, both},
		{"cleared table", []string{"-C"}, smallTableSaved}, // the foreign service is not ours to bring back
	}
	for _, tt := range tests {
		before := l.repaired(n)
		start := time.Now()
		n.ipvsadm(tt.args...)
		n.awaitKernel(tt.want)
		within(t, tt.name, start)
		l.await("count of the "+tt.name, func() error {
			if got := l.repaired(n); got <= before {
				return fmt.Errorf("%d repairs before, %d now", before, got)
			}
			return nil
		})
	}
	if got := l.repaired(leader); got != 0 {
		t.Errorf("%s, which nobody touched, counts %d repairs", leader.name, got)
	}
	for n, daemon := range map[*node]string{n: "backup", leader: "master"} {
		before := l.repaired(n)
		start := time.Now()
		n.ipvsadm("--stop-daemon", daemon)
		n.awaitDaemons(daemon)
		within(t, "stopped "+daemon, start)
		l.await("count of the stopped "+daemon, func() error {
			if got := l.repaired(n); got <= before {
				return fmt.Errorf("%d repairs before, %d now", before, got)
			}
			return nil
		})
	}
}

// within fails unless start was at most a drift interval ago, and as much again as a
// slow emulated kernel takes for the work itself.
func within(t *testing.T, what string, start time.Time) {
	t.Helper()
	if took := time.Since(start); took > 13*time.Second {
		t.Errorf("%s: repaired after %s, want at most the drift interval of 10s", what, took.Round(time.Second/10))
	}
}

func TestForeignServiceIsReported(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	n := l.nodes[0]
	n.ipvsadm("-A", "-u", "10.9.0.200:53", "-s", "rr")
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(smallTable, "apply", "-f", "-")
	n.awaitKernel(smallTableSaved + "-A -u 10.9.0.200:53 -s rr\n")
	l.await("foreign service in status", func() error {
		s, err := leader.status()
		if err != nil {
			return err
		}
		for _, node := range s.Nodes {
			want := 0
			if node.Name == n.name {
				want = 1
			}
			if node.Foreign != want {
				return fmt.Errorf("%s reports %d foreign services, want %d", node.Name, node.Foreign, want)
			}
		}
		return nil
	})
	// In the table, it becomes ours, and goes with the table.
	leader.mustHA("service", "add", "udp://10.9.0.200:53", "--scheduler", "rr")
	leader.mustHA("service", "delete", "udp://10.9.0.200:53")
	n.awaitKernel(smallTableSaved)
}

func TestExclusiveOwnershipRemovesForeignServices(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	n := l.nodes[0]
	n.config = "ownership: exclusive\n"
	n.ipvsadm("-A", "-u", "10.9.0.200:53", "-s", "rr")
	l.startAll()
	l.awaitLeader().mustApply(smallTable, "apply", "-f", "-")
	n.awaitKernel(smallTableSaved)
}

// TestRefusals are the inputs that must not reach the log.
func TestRefusals(t *testing.T) {
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(smallTable, "apply", "-f", "-")
	follower := l.others(leader)[0]
	before := follower.mustHA("get", "-o", "json")

	apply := func(table string) func() (string, int) {
		return func() (string, int) { return follower.haInput(table, "apply", "-f", "-") }
	}
	cli := func(args ...string) func() (string, int) {
		return func() (string, int) { return follower.ha(args...) }
	}
	const service = "tcp://10.9.0.100:80"
	tests := []struct {
		name string
		do   func() (string, int)
		says []string
		code int
	}{
		{"unknown scheduler", apply("services:\n  - service: " + service + "\n    scheduler: quick\n"), []string{"scheduler", "quick"}, 1},
		{"long scheduler", cli("service", "set", service, "--scheduler", "abcdefghijklmnop"), []string{"scheduler", "15"}, 2},
		{"mixed family with sync", cli("destination", "add", service, "[2001:db8::1]:80", "--forward", "tunnel"), []string{"sync"}, 1},
		{"bad address", apply("services:\n  - service: tcp://10.9.0.300:80\n"), []string{"10.9.0.300"}, 1},
		{"weight -1", cli("destination", "set", service, "10.9.0.21:80", "--weight", "-1"), []string{"weight", "-1"}, 2},
		{"duplicate service", apply(smallTable + "  - service: " + service + "\n"), []string{"duplicate", "services[1]"}, 1},
		{"duplicate destination", cli("destination", "add", service, "10.9.0.21:80"), []string{"exists", "10.9.0.21:80"}, 1},
		{"unknown key", apply("services:\n  - service: " + service + "\n    schedular: rr\n"), []string{"schedular", "3"}, 1},
		{"droute to another port", cli("destination", "add", service, "10.9.0.23:8080"), []string{"8080"}, 1},
		{"tunnel to another port", cli("destination", "add", service, "10.9.0.23:8080", "--forward", "tunnel"), []string{"8080"}, 1},
		{"old revision", func() (string, int) {
			return follower.haInput(smallTable, "apply", "-f", "-", "--if-revision", "1")
		}, []string{"revision"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, code := tt.do()
			if code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			for _, text := range tt.says {
				if !strings.Contains(out, text) {
					t.Errorf("the message does not say %q: %s", text, out)
				}
			}
		})
	}
	if after := follower.mustHA("get", "-o", "json"); after != before {
		t.Errorf("something changed:\nbefore %s\n after %s", before, after)
	}
}

// repaired is the number of repairs that n counts.
func (l *lab) repaired(n *node) int {
	l.t.Helper()
	s, err := n.status()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, node := range s.Nodes {
		if node.Name == n.name {
			return int(node.DriftRepaired)
		}
	}
	l.t.Fatalf("%s is not in its own status: %+v", n.name, s)
	return 0
}

// TestMissingScheduler has a kernel without the mh scheduler, which only a guest of
// its own can be: modules belong to the kernel, not to a namespace, so that all
// directors lack it.
func TestMissingScheduler(t *testing.T) {
	if os.Getenv("IPVS_HA_WITHOUT") != "mh" {
		t.Skip("runs in a guest without ip_vs_mh, see make e2e")
	}
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply("vips: []\n"+smallTable, "apply", "-f", "-")
	const service = "tcp://10.9.0.200:80"
	out, code := l.others(leader)[0].ha("service", "add", service, "--scheduler", "mh")
	if code != 4 {
		t.Errorf("a service that no kernel takes: exit %d, want 4: %s", code, out)
	}
	s, err := leader.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		if !strings.Contains(out, n.Name+": "+service) || !strings.Contains(out, "modprobe ip_vs_mh") {
			t.Errorf("the answer does not name %s, the service and what to do: %s", n.Name, out)
		}
		if len(n.Errors) != 1 || n.Errors[0].Object != service || !strings.Contains(n.Errors[0].Message, "modprobe ip_vs_mh") {
			t.Errorf("the status of %s does not name the service and what to do: %+v", n.Name, n.Errors)
		}
	}
	// Other changes go on as if nothing were.
	leader.mustHA("destination", "set", "tcp://10.9.0.100:80", "10.9.0.22:80", "--weight", "5")
	for _, n := range l.nodes {
		n.awaitKernel(strings.Replace(smallTableSaved, "-w 2", "-w 5", 1))
	}
	leader.mustHA("service", "set", service, "--scheduler", "rr")
	for _, n := range l.nodes {
		n.awaitKernel(strings.Replace(smallTableSaved, "-w 2", "-w 5", 1) + "-A -t 10.9.0.200:80 -s rr\n")
	}
}
