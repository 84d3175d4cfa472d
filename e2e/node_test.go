package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// node is a host with an agent.
type node struct {
	lab     *lab
	name    string
	address string
	ns      string
	dir     string // data directory; .yaml and .log beside it
	socket  string
	expect  int
	cluster string // further keys of "cluster", each after a comma
	config  string // further lines of the configuration
	nice    int    // below 0: the rest of the lab does not keep its processor from it
	uid     uint32 // 0 is root
	cmd     *exec.Cmd
}

// start starts the agent.
func (n *node) start() {
	n.lab.t.Helper()
	role := "director"
	if strings.HasPrefix(n.name, "w") {
		role = "witness"
	}
	config := fmt.Sprintf("node: %s\nrole: %s\ndata_dir: %s\ncluster: {name: lb, address: %s, join: [10.9.0.11, 10.9.0.12, 10.9.0.13], expect: %d%s}\napi: {socket: %s}\n%s",
		n.name, role, n.dir, n.address, n.expect, n.cluster, n.socket, n.config)
	if role == "director" {
		config += "sync: {interface: eth0}\n"
	}
	if err := os.WriteFile(n.dir+".yaml", []byte(config), 0o644); err != nil {
		n.lab.t.Fatal(err)
	}
	log, err := os.OpenFile(n.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.lab.t.Fatal(err)
	}
	defer log.Close()
	n.cmd = exec.Command(os.Getenv("IPVS_HA_BIN"), "agent", "--config", n.dir+".yaml")
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if n.uid != 0 {
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: n.uid, Gid: n.uid}}
	}
	n.run()
}

// run starts the node's command on its host.
func (n *node) run() {
	n.lab.t.Helper()
	err := inNamespace(n.ns, func() error {
		// A process inherits what the thread has that starts it.
		before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, 0, n.nice)
		}
		if err != nil {
			return err
		}
		defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, 20-before) }() // the kernel's answer is never negative
		return n.cmd.Start()
	})
	if err != nil {
		n.lab.t.Fatal(err)
	}
}

// kill ends the agent with signal and waits for its end.
func (n *node) kill(signal syscall.Signal) {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(signal)
	_ = n.cmd.Wait()
	n.cmd = nil
}

// awaitExit waits until the agent ends by itself.
func (n *node) awaitExit() error {
	n.lab.t.Helper()
	ended := make(chan error, 1)
	cmd := n.cmd
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		n.cmd = nil
		return err
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-ended
		n.cmd = nil
		n.lab.logs()
		n.lab.t.Fatalf("%s does not end", n.name)
		return nil
	}
}

func (n *node) cleanup() { n.kill(syscall.SIGKILL) }

// wipe removes the data directory of a stopped node.
func (n *node) wipe() {
	if err := os.RemoveAll(n.dir); err != nil {
		n.lab.t.Fatal(err)
	}
}

// ha runs the command line against this node and returns its output, both streams,
// and its exit status.
func (n *node) ha(args ...string) (string, int) { return n.haInput("", args...) }

func (n *node) haInput(input string, args ...string) (string, int) {
	n.lab.t.Helper()
	cmd := exec.Command(os.Getenv("IPVS_HA_BIN"), append(args, "--api", "unix://"+n.socket)...)
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.lab.t.Fatalf("ipvs-ha %v: %v", args, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// mustHA fails the test unless the command succeeds.
func (n *node) mustHA(args ...string) string { return n.mustApply("", args...) }

func (n *node) mustApply(input string, args ...string) string {
	n.lab.t.Helper()
	out, code := n.haInput(input, args...)
	if code != 0 {
		n.lab.logs()
		n.lab.t.Fatalf("ipvs-ha %s on %s: exit %d\n%s", strings.Join(args, " "), n.name, code, out)
	}
	return out
}

// ipvsadm runs ipvsadm in the node's namespace.
func (n *node) ipvsadm(args ...string) string {
	n.lab.t.Helper()
	return n.lab.run("ip", append([]string{"netns", "exec", n.ns, "ipvsadm"}, args...)...)
}

// awaitKernel waits until the node's kernel lists want.
func (n *node) awaitKernel(want string) {
	n.lab.t.Helper()
	n.lab.await("table in "+n.name+"'s kernel", func() error {
		if got := n.ipvsadm("-Sn"); got != want {
			return fmt.Errorf("got\n%swant\n%s", got, want)
		}
		return nil
	})
}

// awaitDaemons waits until exactly these sync daemons run on the node.
func (n *node) awaitDaemons(want ...string) {
	n.lab.t.Helper()
	n.lab.await(fmt.Sprintf("daemons %v on %s", want, n.name), func() error {
		var got []string
		for line := range strings.Lines(n.ipvsadm("-l", "--daemon")) {
			if state, _, ok := strings.Cut(line, " sync daemon"); ok {
				got = append(got, state)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
}
