package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestWipedNodeComesBack(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(smallTable, "apply", "-f", "-")
	leader.mustHA("service", "add", "fwmark://7", "--scheduler", "rr")
	n := l.others(leader)[0]
	n.awaitKernel(smallTableSaved + "-A -f 7 -s rr\n")
	n.kill(syscall.SIGKILL)
	n.wipe()
	if out, code := leader.ha("destination", "set", "tcp://10.9.0.100:80", "10.9.0.22:80", "--weight", "5"); code != 0 && code != 4 { // 4: not in its kernel
		t.Fatalf("exit %d: %s", code, out)
	}
	leader.mustHA("service", "delete", "fwmark://7")
	n.start()
	// What it no longer knows to be its own it leaves alone, and reports.
	n.awaitKernel(strings.Replace(smallTableSaved, "-w 2", "-w 5", 1) + "-A -f 7 -s rr\n")
	l.await("foreign service in status", func() error {
		if out := leader.mustHA("status"); !strings.Contains(out, "fwmark://7") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	l.awaitVoters(leader, "d1", "d2", "d3")
	l.awaitRoles()
}

// TestWipedMajorityFoundsNoSecondCluster wipes two of three: with the third one's
// state in reach, nobody may start over.
func TestWipedMajorityFoundsNoSecondCluster(t *testing.T) {
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(smallTable, "apply", "-f", "-")
	wiped := l.others(leader)
	for _, n := range wiped {
		n.kill(syscall.SIGKILL)
		n.wipe()
	}
	for _, n := range wiped {
		n.start()
	}
	noLeader := func() error {
		for _, n := range wiped {
			s, err := n.status()
			if err != nil {
				return err
			}
			if s.Leader != "" {
				t.Fatalf("%s has a leader, %s: a second cluster was founded", n.name, s.Leader)
			}
			if !strings.Contains(fmt.Sprint(s.Nodes), "knows a leader") {
				return fmt.Errorf("%s does not say that it waits for the leader: %+v", n.name, s)
			}
		}
		return nil
	}
	l.await("word of what they wait for", noLeader)
	// Several times as long as a founding takes, the same is true.
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if err := noLeader(); err != nil {
			t.Fatal(err)
		}
	}
	if got := leader.ipvsadm("-Sn"); got != smallTableSaved {
		t.Errorf("the survivor's kernel changed:\n%s", got)
	}
}

func TestRemovedNodeComesBackOnlyAsANewOne(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(smallTable, "apply", "-f", "-")
	n := l.others(leader)[0]
	l.others(leader)[1].mustHA("members", "remove", n.name)
	_ = n.awaitExit() // it learns of its removal
	l.awaitVoters(leader, l.others(n)[0].name, l.others(n)[1].name)
	n.start()
	if err := n.awaitExit(); err == nil {
		t.Error("a removed node starts again with its old identity")
	}
	n.wipe()
	n.start()
	l.awaitVoters(leader, "d1", "d2", "d3")
	n.awaitKernel(smallTableSaved)
	n.awaitDaemons("backup")
}

func TestAddressChangesWithoutCeremony(t *testing.T) {
	t.Parallel()
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	leader := l.awaitLeader()
	n := l.others(leader)[0]
	n.kill(syscall.SIGTERM)
	l.run("ip", "-n", n.ns, "addr", "flush", "dev", "eth0", "scope", "global")
	n.address = "10.9.0.77"
	l.run("ip", "-n", n.ns, "addr", "add", n.address+"/24", "dev", "eth0")
	n.start()
	l.await("new address in members", func() error {
		if out := leader.mustHA("members"); !strings.Contains(out, "10.9.0.77") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	n.mustApply(smallTable, "apply", "-f", "-")
	n.awaitKernel(smallTableSaved)
	l.awaitVoters(leader, "d1", "d2", "d3")
}

// TestFarBehind stops a node for 10,000 writes, so that its log ends before the
// leader's begins and it needs a snapshot.
func TestFarBehind(t *testing.T) {
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	leader := l.awaitLeader()
	leader.mustApply(smallTable, "apply", "-f", "-")
	n := l.others(leader)[0]
	n.awaitKernel(smallTableSaved)
	n.kill(syscall.SIGTERM)

	const writers, each = 20, 500
	var wg sync.WaitGroup
	var failed atomic.Int64
	for w := range writers {
		wg.Go(func() {
			client := api.NewClient("unix://" + leader.socket)
			for i := range each {
				if err := persist(t.Context(), client, weightWrite(w, i)); err != nil {
					failed.Add(1)
					t.Log(err)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		t.Fatalf("%d writes failed", failed.Load())
	}
	want := strings.Replace(smallTableSaved, "-w 2", "-w 777", 1)
	leader.mustHA("destination", "set", "tcp://10.9.0.100:80", "10.9.0.22:80", "--weight", "777", "--timeout", "60s")
	leader.mustHA("destination", "set", "tcp://10.9.0.100:80", "10.9.0.21:80", "--weight", "1", "--timeout", "60s")
	leader.awaitKernel(want)
	for _, other := range l.others(n) { // whichever leads then
		l.await("log of "+other.name+" without its beginning", other.hasForgotten)
	}
	n.start()
	n.awaitKernel(want)
	n.awaitDaemons("backup")
	// It has not run long enough to have made a snapshot itself.
	if installed, err := filepath.Glob(n.dir + "/snapshots/*/state.bin"); err != nil || len(installed) == 0 {
		t.Errorf("%s came back without a snapshot (%v)", n.name, err)
	}
}

// hasForgotten reports an error until a snapshot is so far on that the entries which
// TestFarBehind began with cannot be among those kept behind it.
func (n *node) hasForgotten() error {
	const begun, kept = 200, 2048
	names, err := filepath.Glob(n.dir + "/snapshots/*-*-*[0-9]") // not one that is being written
	if err != nil {
		return err
	}
	for _, name := range names {
		var term, index, ms int
		if _, err := fmt.Sscanf(filepath.Base(name), "%d-%d-%d", &term, &index, &ms); err != nil {
			return err
		}
		if index > begun+kept {
			return nil
		}
	}
	return fmt.Errorf("snapshots: %v", names)
}

// persist writes until it is answered, always with the same id. On an emulated kernel
// so many writers may cost the leader its role.
func persist(ctx context.Context, client *api.Client, w api.Write) error {
	w.ID = api.NewID()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := client.Write(ctx, w)
		kind := api.KindOf(err)
		if err == nil || kind != api.NoLeader && kind != api.Unknown || ctx.Err() != nil {
			return err
		}
	}
}

// weightWrite sets a weight that depends on the writer and its turn.
func weightWrite(writer, turn int) api.Write {
	key := ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("10.9.0.100:80"))
	return api.Write{
		Wait: api.WaitNone,
		Changes: []ipvs.Change{{Op: ipvs.SetDestination, Key: key, Destination: &ipvs.Destination{
			Addr: netip.MustParseAddrPort("10.9.0.21:80"), Forward: ipvs.DRoute, Weight: int32(1 + writer*1000 + turn),
		}}},
	}
}

// TestAcknowledgedWritesSurviveKills sends 1,000 writes through changing nodes
// while agents are killed, leaders first, and expects every acknowledged one in
// every kernel.
func TestAcknowledgedWritesSurviveKills(t *testing.T) {
	l := newLab(t, "d1", "d2", "d3")
	l.startAll()
	l.awaitLeader().mustApply(smallTable, "apply", "-f", "-")

	const writes, kills = 1000, 8
	acknowledged := make([]bool, writes)
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= writes {
					return
				}
				acknowledged[i] = l.addService(t.Context(), i, w)
			}
		})
	}
	for k := range kills {
		l.await("progress of the writes", func() error {
			if done := int(next.Load()); done < (k+1)*writes/(kills+2) {
				return fmt.Errorf("%d writes so far", done)
			}
			return nil
		})
		victim := l.awaitLeader()
		if k%3 == 2 {
			victim = l.others(victim)[k%2]
		}
		victim.kill(syscall.SIGKILL)
		victim.start()
	}
	wg.Wait()
	l.awaitLeader()

	count := 0
	for _, ok := range acknowledged {
		if ok {
			count++
		}
	}
	t.Logf("%d of %d writes acknowledged over %d kills", count, writes, kills)
	if count < writes/2 {
		t.Errorf("only %d of %d writes were acknowledged", count, writes)
	}
	for _, n := range l.nodes {
		l.await("every acknowledged service in "+n.name+"'s kernel", func() error {
			saved := n.ipvsadm("-Sn")
			for i, ok := range acknowledged {
				if line := fmt.Sprintf("-A -f %d -s rr\n", i+1); ok && !strings.Contains(saved, line) {
					return fmt.Errorf("service %d is missing", i+1)
				}
			}
			return nil
		})
	}
}

// addService adds the service with mark i+1 through some node, and says whether
// that was acknowledged.
func (l *lab) addService(ctx context.Context, i, writer int) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := ipvs.ServiceMarked(ipvs.IPv4, uint32(i+1))
	write := api.Write{
		ID:      fmt.Sprintf("kill-test-%d", i),
		Wait:    api.WaitNone,
		Changes: []ipvs.Change{{Op: ipvs.AddService, Key: key, Service: &ipvs.Service{Key: key, Scheduler: "rr"}}},
	}
	for try := 0; ctx.Err() == nil; try++ {
		client := api.NewClient("unix://" + l.nodes[(i+writer+try)%len(l.nodes)].socket)
		once, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err := client.Write(once, write) // the same id: a repetition is harmless
		cancel()
		if err == nil {
			return true
		}
	}
	return false
}

// awaitVoters waits until exactly these nodes are members, all of them voters.
func (l *lab) awaitVoters(asked *node, names ...string) {
	l.t.Helper()
	l.await(fmt.Sprintf("voters %v", names), func() error {
		s, err := asked.status()
		if err != nil {
			return err
		}
		voters := map[string]bool{}
		for _, n := range s.Nodes {
			if n.State != api.StateUnreachable {
				voters[n.Name] = n.Voter
			}
		}
		if len(s.Nodes) != len(names) {
			return fmt.Errorf("%d nodes", len(s.Nodes))
		}
		for _, name := range names {
			if !voters[name] {
				return fmt.Errorf("%s is no voter: %v", name, voters)
			}
		}
		return nil
	})
}
