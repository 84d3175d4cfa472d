package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A system is directors that own one VIP together: ipvs-ha's, or those of what it is
// compared with. They are the nodes of its lab, so that one probe fits all.
type system interface {
	// net returns where the directors are.
	net() *lab
	// start starts all directors and returns when one of them owns the VIP and the
	// others are ready to.
	start()
	// owner returns the director that owns the VIP as the system itself sees it, nil
	// for none. Of two owners it returns one.
	owner() *node
	// strike does to a director what the event is. It may return before the event has
	// its effect.
	strike(what event, n *node)
	// heal undoes strike and returns when there is one owner and every director is
	// ready to be the next.
	heal(what event, n *node)
}

// An event is a reason for the VIP to move.
type event string

const (
	hostLoss event = "host loss" // all its links are cut
	kill9    event = "kill -9"   // all its processes
	sigstop  event = "SIGSTOP"   // all its processes
	sigterm  event = "SIGTERM"
	transfer event = "transfer"  // what an operator does to move the VIP
	diskHang event = "disk hang" // where it keeps its files, writes block
)

// cluster is three directors of ipvs-ha.
type cluster struct{ *lab }

// newCluster makes directors that own the VIPs of table, with further lines of
// configuration. Their data directories can hang.
func newCluster(t testing.TB, table, config string) cluster {
	t.Helper()
	c := cluster{newLab(t, "d1", "d2", "d3")}
	for _, n := range c.nodes {
		n.config = "vip: {interface: eth0}\n" + config
		n.ownDisk()
	}
	if err := os.WriteFile(c.table(), []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c cluster) table() string { return filepath.Join(c.dir, "table.yaml") }

func (c cluster) net() *lab { return c.lab }

func (c cluster) start() {
	c.t.Helper()
	c.startAll()
	c.awaitLeader().mustHA("apply", "-f", c.table(), "--wait", "all")
	c.awaitWhole()
}

func (c cluster) owner() *node {
	for _, n := range c.nodes {
		if n.cmd == nil {
			continue
		}
		if s, err := n.status(); err == nil && s.Leader != "" {
			return c.node(s.Leader)
		}
	}
	return nil
}

func (c cluster) strike(what event, n *node) {
	c.t.Helper()
	switch what {
	case hostLoss:
		c.cable(n.ns, "down")
	case kill9:
		n.kill(syscall.SIGKILL)
	case sigstop:
		_ = n.cmd.Process.Signal(syscall.SIGSTOP)
	case sigterm:
		n.kill(syscall.SIGTERM)
	case transfer:
		n.mustHA("transfer")
	case diskHang:
		n.disk("--freeze")
	}
}

func (c cluster) heal(what event, n *node) {
	c.t.Helper()
	switch what {
	case hostLoss:
		c.cable(n.ns, "up")
	case kill9, sigterm:
		n.start()
	case sigstop:
		_ = n.cmd.Process.Signal(syscall.SIGCONT)
	case diskHang:
		n.disk("--unfreeze")
		c.await(n.name+" with its disk", func() error {
			if n.ended() { // as systemd would
				n.kill(syscall.SIGKILL)
				n.start()
			}
			_, err := n.status()
			return err
		})
	}
	c.awaitWhole()
}

// awaitWhole waits until all directors are there and know who owns the VIPs.
func (c cluster) awaitWhole() {
	c.t.Helper()
	leader := c.awaitLeader()
	c.awaitVoters(leader, "d1", "d2", "d3")
	c.await("owner of the VIPs", func() error {
		leader = c.awaitLeader()
		s, err := leader.status()
		if err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if n.Name == leader.name && len(n.VIPs) == 0 {
				return fmt.Errorf("%s owns none: %+v", n.Name, n)
			}
		}
		return nil
	})
	c.awaitRoles(leader)
}

// ownDisk gives the node a file system of its own for its files.
func (n *node) ownDisk() {
	n.lab.t.Helper()
	image := n.dir + ".img"
	n.lab.run("sh", "-c", fmt.Sprintf(
		"truncate -s 64M %[1]s && mke2fs -F %[1]s && mkdir -p %[2]s && mount -t ext4 -o loop %[1]s %[2]s", image, n.dir))
	n.lab.t.Cleanup(func() {
		n.kill(syscall.SIGKILL)
		n.lab.run("sh", "-c", "until umount "+n.dir+"; do sleep 0.1; done")
	})
}

// disk lets the node's file system block all writes, or go on.
func (n *node) disk(freeze string) {
	n.lab.t.Helper()
	n.lab.run("fsfreeze", freeze, n.dir)
}

// ended reports whether the agent's process has ended; kill still is to be called.
func (n *node) ended() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, n.cmd.Process.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo == int32(unix.SIGCHLD)
}
