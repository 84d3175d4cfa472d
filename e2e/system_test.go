package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// A system is directors that own one VIP together: ipvs-ha's, or those of what it is
// compared with. They are the nodes of its lab, so that one probe fits all.
type system interface {
	// net returns where the directors are.
	net() *lab
	// start starts all directors and returns when they are whole.
	start()
	// owner returns the director that owns the VIP as the system itself sees it, nil
	// for none. Of two owners it returns one.
	owner() *node
	// strike does to a director what the event is. It may return before the event has
	// its effect.
	strike(what event, n *node)
	// heal undoes what strike did.
	heal(what event, n *node)
	// awaitWhole waits until there is one owner, and every other director is ready to
	// be the next.
	awaitWhole()
}

// An event is a reason for the VIP to move.
type event string

const (
	hostLoss event = "host loss" // all its links are cut
	kill9    event = "kill -9"   // all its processes
	sigstop  event = "SIGSTOP"   // all its processes
	sigterm  event = "SIGTERM"
	transfer event = "transfer"  // what an operator does to move the VIP
	drain    event = "drain"     // what an operator does to keep the VIP away from it
	diskHang event = "disk hang" // where it keeps its files, writes block

	// Every director is stopped and started, in turn; strike returns when all have come
	// back, and there is nothing to heal.
	rollingRestart event = "rolling restart"
)

// cluster is three directors of ipvs-ha.
type cluster struct{ *lab }

// newCluster makes directors that own the VIPs of table. For diskHang each node needs
// ownDisk.
func newCluster(t testing.TB, table, profile string) cluster {
	t.Helper()
	c := cluster{newLab(t, "d1", "d2", "d3")}
	for _, n := range c.nodes {
		n.cluster, n.config, n.nice = ", profile: "+profile, "vip: {interface: eth0}\n", -15
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
	c.await("table", func() error { // a new cluster may choose its leader anew
		if out, code := c.awaitLeader().ha("apply", "-f", c.table(), "--wait", "all"); code != 0 {
			return errors.New(out)
		}
		return nil
	})
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
	case drain:
		n.mustHA("drain", n.name)
	case rollingRestart:
		for _, n := range c.nodes {
			n.kill(syscall.SIGTERM)
			n.start()
			c.awaitWhole()
			c.awaitEligible(n, "")
		}
	case diskHang:
		n.disk("--freeze")
		// What a director has in memory goes on without a disk. A change does not.
		weight := fmt.Sprint(2 + time.Now().UnixNano()%1000)
		change := exec.Command(os.Getenv("IPVS_HA_BIN"), "destination", "set", "tcp://10.9.0.100:80", "10.9.0.21:80",
			"--weight", weight, "--wait", "none", "--api", "unix://"+c.others(n)[0].socket)
		if err := change.Start(); err != nil {
			c.t.Fatal(err)
		}
		go func() { _ = change.Wait() }() // it may fail, and then nothing has changed
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
	case drain:
		n.mustHA("undrain", n.name)
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
}

func (c cluster) awaitWhole() {
	c.t.Helper()
	c.await("whole cluster", func() error {
		if c.owner() == nil {
			return errors.New("no leader")
		}
		s, err := c.owner().status()
		if err != nil {
			return err
		}
		if len(s.Nodes) != len(c.nodes) {
			return fmt.Errorf("%d nodes", len(s.Nodes))
		}
		for _, n := range s.Nodes {
			leads := n.Name == s.Leader
			switch {
			case !n.Voter || n.AppliedRevision != s.Revision:
				return fmt.Errorf("%s is no voter or has another table than revision %d: %+v", n.Name, s.Revision, n)
			case leads != (len(n.VIPs) > 0):
				return fmt.Errorf("%s leads: %t; it has the VIPs %v", n.Name, leads, n.VIPs)
			case len(n.SyncDaemons) != 1 || leads != (n.SyncDaemons[0].State == ipvs.Master):
				return fmt.Errorf("%s leads: %t; daemons %v", n.Name, leads, n.SyncDaemons)
			}
		}
		return nil
	})
}

// mounting is held while a file becomes a device: mount looks for a free one and then
// takes it, and of two at once one may find it taken.
var mounting sync.Mutex

// ownDisk gives the node a file system of its own for its files.
func (n *node) ownDisk() {
	n.lab.t.Helper()
	image := n.dir + ".img"
	mounting.Lock()
	defer mounting.Unlock()
	n.lab.run("sh", "-c", fmt.Sprintf(
		"truncate -s 64M %[1]s && mke2fs -F %[1]s && mkdir -p %[2]s && mount -t ext4 -o loop %[1]s %[2]s", image, n.dir))
	n.lab.t.Cleanup(func() {
		n.kill(syscall.SIGKILL)
		n.lab.run("umount", "-l", n.dir)
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
