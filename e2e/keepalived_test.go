package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// keepalived is a pair of directors of keepalived. k1 owns the VIP whenever it can,
// as is keepalived's default.
type keepalived struct {
	*lab
	advert string // advert_int in seconds; below 1 with version 3 of the protocol
	more   string // further virtual addresses, a line each; an advertisement has room for few
}

// keepalivedPath is the program's path, from the environment: only those who want to
// compare need it.
func keepalivedPath(t testing.TB) string {
	t.Helper()
	path := os.Getenv("IPVS_HA_KEEPALIVED")
	if path == "" {
		t.Fatal("IPVS_HA_KEEPALIVED does not name the keepalived binary")
	}
	return path
}

// newKeepalived makes a pair that owns 10.9.0.100 and balances its port 80 between
// 10.9.0.21 and .22 by direct routing.
func newKeepalived(t testing.TB, advert string) keepalived {
	t.Helper()
	k := keepalived{lab: newLab(t, "k1", "k2"), advert: advert}
	for _, n := range k.nodes {
		n.nice = -15
		n.ownDisk()
		t.Cleanup(func() {
			k.signal(n, syscall.SIGCONT)
			k.signal(n, syscall.SIGKILL)
		})
	}
	return k
}

func (k keepalived) net() *lab { return k.lab }

func (k keepalived) start() {
	k.t.Helper()
	for _, n := range k.nodes {
		k.configure(n, k.priority(n))
		k.launch(n)
		// Two that start together may both keep it.
		k.await("VIP on k1", func() error {
			if !k.has(k.nodes[0]) {
				return errors.New("it has none")
			}
			return nil
		})
	}
	k.awaitWhole()
}

func (k keepalived) priority(n *node) int {
	if n.name == "k1" {
		return 150
	}
	return 100
}

func (k keepalived) configure(n *node, priority int) {
	k.t.Helper()
	version := 3
	if seconds, err := strconv.ParseFloat(k.advert, 64); err == nil && seconds >= 1 {
		version = 2 // the default
	}
	config := fmt.Sprintf(`global_defs {
	router_id %s
	vrrp_version %d
	lvs_sync_daemon eth0 VI_1 id 51
}
vrrp_instance VI_1 {
	state BACKUP
	interface eth0
	virtual_router_id 51
	priority %d
	advert_int %s
	virtual_ipaddress {
		10.9.0.100/32
	}
	virtual_ipaddress_excluded {
%s	}
}
virtual_server 10.9.0.100 80 {
	delay_loop 6
	lb_algo rr
	lb_kind DR
	protocol TCP
`, n.name, version, priority, k.advert, k.more)
	for _, server := range []string{"10.9.0.21", "10.9.0.22"} {
		config += fmt.Sprintf("\treal_server %s 80 {\n\t\tweight 1\n\t\tTCP_CHECK {\n\t\t\tconnect_timeout 3\n\t\t}\n\t}\n", server)
	}
	if err := os.WriteFile(n.dir+"/keepalived.conf", []byte(config+"}\n"), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// pidFiles are those of all of a director's processes.
func (n *node) pidFiles() []string {
	return []string{n.dir + "/keepalived.pid", n.dir + "/vrrp.pid", n.dir + "/checkers.pid"}
}

func (k keepalived) launch(n *node) {
	k.t.Helper()
	log, err := os.OpenFile(n.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		k.t.Fatal(err)
	}
	defer log.Close()
	for _, f := range n.pidFiles() {
		_ = os.Remove(f) // of processes that were killed
	}
	pids := n.pidFiles()
	n.cmd = exec.Command(keepalivedPath(k.t), "--dont-fork", "--log-console", "--log-detail", "--use-file", n.dir+"/keepalived.conf",
		"--pid", pids[0], "--vrrp_pid", pids[1], "--checkers_pid", pids[2])
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.run()
}

// signal sends a signal to all processes of a director.
func (k keepalived) signal(n *node, signal syscall.Signal) {
	for _, f := range n.pidFiles() {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = syscall.Kill(pid, signal)
		}
	}
}

func (k keepalived) owner() *node {
	for _, n := range k.nodes {
		if k.has(n) {
			return n
		}
	}
	return nil
}

func (k keepalived) has(n *node) bool {
	return strings.Contains(k.run("ip", "-n", n.ns, "addr", "show", "eth0"), " 10.9.0.100/32")
}

func (k keepalived) strike(what event, n *node) {
	k.t.Helper()
	switch what {
	case hostLoss:
		k.cable(n.ns, "down")
	case kill9:
		k.signal(n, syscall.SIGKILL)
		n.kill(syscall.SIGKILL)
	case sigstop:
		k.signal(n, syscall.SIGSTOP)
	case sigterm:
		n.kill(syscall.SIGTERM)
	case transfer, drain: // it has one way for both
		k.reprioritise(n, 50)
	case rollingRestart:
		for _, n := range k.nodes {
			n.kill(syscall.SIGTERM)
			k.launch(n)
			k.awaitWhole()
		}
	case diskHang:
		n.disk("--freeze")
	}
}

func (k keepalived) heal(what event, n *node) {
	k.t.Helper()
	switch what {
	case hostLoss:
		k.cable(n.ns, "up")
	case kill9, sigterm:
		k.launch(n)
	case sigstop:
		k.signal(n, syscall.SIGCONT)
	case transfer, drain:
		k.reprioritise(n, k.priority(n))
	case diskHang:
		n.disk("--unfreeze")
	}
}

func (k keepalived) reprioritise(n *node, priority int) {
	k.configure(n, priority)
	_ = n.cmd.Process.Signal(syscall.SIGHUP)
}

// awaitWhole waits for k1, which takes the VIP whenever it can.
func (k keepalived) awaitWhole() {
	k.t.Helper()
	k1, k2 := k.nodes[0], k.nodes[1]
	k.await("VIP on k1 alone", func() error {
		if !k.has(k1) || k.has(k2) {
			return fmt.Errorf("k1 has it: %t, k2 has it: %t", k.has(k1), k.has(k2))
		}
		return nil
	})
	k1.awaitDaemons("master")
	k2.awaitDaemons("backup")
}
