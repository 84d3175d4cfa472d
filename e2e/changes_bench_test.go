package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// reloadLimit is how long a reload of keepalived's may take before larger tables are
// left out.
const reloadLimit = 20 * time.Second

// measureChanges measures how long a change of one weight takes until all three
// kernels have it, and until keepalived's one kernel does.
func measureChanges(b *testing.B, f *figureTable) {
	keepalived := newReloader(b)
	c := newAgents(b, "")
	sizes := []int{10, 1000, 10_000}
	single := map[int]time.Duration{}
	reloads := true
	for _, services := range sizes {
		size := fmt.Sprintf("%d services", services)
		c.replace(sizedTable(services, 1))
		follower := c.others(c.awaitLeader())[0]
		c.changes(1, 10, services, follower) // do not count
		one, again := c.changes(1, 200, services, follower)
		single[services] = percentile(one, 0.5)
		f.add(b, "one change, through a follower", size, "%s; %d asked again", percentiles(one), again)
		many, again := c.changes(16, 30, services, c.nodes...)
		f.add(b, "16 writers, over all nodes", size, "%s; %d asked again", percentiles(many), again)
		if !reloads {
			continue
		}
		took := keepalived.changes(services)
		f.add(b, "keepalived, its file and SIGHUP", size, "%s", percentiles(took))
		reloads = percentile(took, 1) < reloadLimit
	}
	first, last := sizes[0], sizes[len(sizes)-1]
	f.add(b, "one change, ratio of the medians", fmt.Sprintf("%d : %d services", last, first), "%.2f (at most 3)",
		single[last].Seconds()/single[first].Seconds())
}

// reloader is a director of keepalived that balances only: it has no VIP and no peer.
type reloader struct {
	*lab
	path   string
	ns     string
	kernel *kernel.Client
	weight int32
}

func newReloader(b *testing.B) *reloader {
	k := &reloader{lab: newLab(b), path: keepalivedPath(b), weight: 1}
	k.ns = k.prefix + "k"
	k.host(k.ns, "10.9.0.11")
	if err := inNamespace(k.ns, func() (err error) { k.kernel, err = kernel.Dial(); return err }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = k.kernel.Close() })
	return k
}

// changes starts keepalived with so many services, and changes a weight some times.
func (k *reloader) changes(services int) (took []time.Duration) {
	k.t.Helper()
	file := filepath.Join(k.dir, "keepalived.conf")
	log, err := os.Create(filepath.Join(k.dir, "keepalived.log"))
	if err != nil {
		k.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(k.path, "--check", "--dont-fork", "--log-console", "--use-file", file,
		"--pid", filepath.Join(k.dir, "k.pid"), "--checkers_pid", filepath.Join(k.dir, "kc.pid"))
	cmd.Stdout, cmd.Stderr = log, log
	k.weight++
	reload(k.t, cmd, file, services, k.weight)
	if err := inNamespace(k.ns, cmd.Start); err != nil {
		k.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	k.awaitWeight(0)
	k.awaitWeight(services - 1)
	for began := time.Now(); len(took) < 20 && time.Since(began) < reloadLimit; {
		k.weight++
		start := time.Now()
		reload(k.t, cmd, file, services, k.weight)
		k.awaitWeight(0)
		took = append(took, time.Since(start))
	}
	return took
}

// awaitWeight waits until the kernel has the i-th service with its newest weight.
func (k *reloader) awaitWeight(i int) {
	k.t.Helper()
	want := int32(1)
	if i == 0 {
		want = k.weight
	}
	key := ipvs.ServiceAt(ipvs.TCP, sizedService(i))
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(loading); ; {
		list, err := k.kernel.Destinations(k.t.Context(), key)
		if err == nil && len(list) == 1 && list[0].Weight == want {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			k.t.Fatalf("keepalived's kernel has not %v with weight %d: %v, %v\n%s", key, want, list, err, fileText(k.t, filepath.Join(k.dir, "keepalived.log")))
		}
	}
}

// reload writes keepalived's configuration with a weight of the first service's
// destination and tells it.
func reload(t testing.TB, cmd *exec.Cmd, file string, services int, weight int32) {
	t.Helper()
	var b strings.Builder
	b.WriteString("global_defs {\n\trouter_id k\n}\n")
	for i := range services {
		w := int32(1)
		if i == 0 {
			w = weight
		}
		at, d := sizedService(i), sizedDestination(0, w)
		fmt.Fprintf(&b, "virtual_server %s %d {\n\tlb_algo wrr\n\tlb_kind NAT\n\tprotocol TCP\n\treal_server %s %d {\n\t\tweight %d\n\t}\n}\n",
			at.Addr(), at.Port(), d.Addr.Addr(), d.Addr.Port(), d.Weight)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if cmd.Process != nil {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
}
