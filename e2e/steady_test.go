package e2e_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/vishvananda/netns"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/api"
)

// TestReturningStandbyMovesNothing cuts a standby off for a while, again and again. The
// other one makes up the majority all the time.
func TestReturningStandbyMovesNothing(t *testing.T) {
	const times = 30
	l, _ := vipLab(t, "")
	owner := l.settle()
	terms := l.terms()
	l.probe.forget()
	standby := l.others(owner)[0]
	for i := range times {
		mend := l.cut(apart(standby, true, true, l.others(standby)...)...)
		time.Sleep(300*time.Millisecond + time.Duration(i)*25*time.Millisecond) // up to more than one of raft's timeouts
		mend()
		l.await("return of "+standby.name, func() error {
			members, err := api.NewClient("unix://" + standby.socket).Members(t.Context())
			if err != nil {
				return err
			}
			for _, m := range members {
				switch {
				case m.Leader && m.Name == owner.name:
					return nil
				case m.Leader:
					l.logs()
					t.Fatalf("after %d returns %s leads, %s did", i+1, m.Name, owner.name)
				}
			}
			return errors.New("it knows no leader")
		})
	}
	l.checkUnmoved(owner, terms)
}

// TestNoNeedlessMove looks for a minute, in a campaign of 50 runs for ten, at two
// clusters that have it hard.
func TestNoNeedlessMove(t *testing.T) {
	lasts := time.Minute
	if n, campaign := runs(t); campaign {
		lasts = max(lasts, time.Duration(n)*12*time.Second)
	}
	for profile, trouble := range map[string]func(*lab) func(){"lan": busy, "wan": lossy} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			l, _ := vipLab(t, "", func(l *lab) string {
				for _, n := range l.nodes {
					n.nice = -10 // as the unit file has it
				}
				return ", profile: " + profile
			})
			defer trouble(l)()
			owner := l.settle()
			terms := l.terms()
			l.probe.forget()
			left := owner.permits(lasts)
			l.checkUnmoved(owner, terms)
			t.Logf("the permit was renewed when it lasted for %v at least, in 99 %% of the looks %v, in half of them %v",
				left[0], left[len(left)/100], left[len(left)/2])
		})
	}
}

// checkUnmoved fails when the role has moved or anybody has stood for election.
func (l *lab) checkUnmoved(owner *node, terms map[string]uint64) {
	l.t.Helper()
	if now := l.settle(); now != owner {
		l.t.Errorf("%s leads, %s did", now.name, owner.name)
	}
	gaps, overlap := l.probe.moves()
	if len(gaps) > 0 || overlap > 0 {
		l.t.Errorf("the VIP has moved: nobody accepted for %v, two accepted %d packets", gaps, overlap)
	}
	if now := l.terms(); !maps.Equal(now, terms) {
		l.t.Errorf("somebody stood for election: the terms were %v and are %v", terms, now)
	}
	if l.t.Failed() {
		l.logs()
	}
}

// terms are raft's, of all nodes, as their disks have them.
func (l *lab) terms() map[string]uint64 {
	l.t.Helper()
	terms := map[string]uint64{}
	for _, n := range l.nodes {
		l.await("term of "+n.name, func() error { // a copy that was written to meanwhile cannot be read
			data, err := os.ReadFile(filepath.Join(n.dir, "raft.db"))
			if err != nil {
				return err
			}
			file := filepath.Join(l.dir, "copy.db")
			if err := os.WriteFile(file, data, 0o600); err != nil {
				return err
			}
			store, err := raftboltdb.New(raftboltdb.Options{Path: file, BoltOptions: &bbolt.Options{ReadOnly: true}})
			if err != nil {
				return err
			}
			defer store.Close()
			terms[n.name], err = store.GetUint64([]byte("CurrentTerm"))
			return err
		})
	}
	return terms
}

// permits looks for a while, often, for how long the owner's permit lasts, and returns
// what it saw in order of size; 0 is none.
func (n *node) permits(d time.Duration) []time.Duration {
	n.lab.t.Helper()
	there, err := netns.GetFromName(n.ns)
	if err != nil {
		n.lab.t.Fatal(err)
	}
	defer there.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(there)), nftables.AsLasting())
	if err != nil {
		n.lab.t.Fatal(err)
	}
	defer func() { _ = conn.CloseLasting() }()
	set := &nftables.Set{Table: &nftables.Table{Family: nftables.TableFamilyINet, Name: "ipvs-ha"}, Name: "permit"}
	var all []time.Duration
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(d); ; {
		select {
		case <-end:
			slices.Sort(all)
			return all
		case <-tick.C:
		}
		elements, err := conn.GetSetElements(set)
		if err != nil {
			n.lab.t.Fatalf("read the permit: %v", err)
		}
		var left time.Duration
		for _, e := range elements {
			if e.Key[0] == unix.NFPROTO_IPV4 {
				left = e.Expires
			}
		}
		all = append(all, left)
	}
}

// busy keeps twice as many loops busy as there are processors, and all disks.
func busy(l *lab) (end func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() { _ = exec.CommandContext(ctx, "sh", "-c", "while :; do :; done").Run() })
	}
	for _, n := range l.nodes {
		work.Go(func() {
			f, err := os.Create(filepath.Join(n.dir, "load"))
			if err != nil {
				l.t.Error(err)
				return
			}
			defer f.Close()
			for block := make([]byte, 1<<16); ctx.Err() == nil; {
				if _, err := f.WriteAt(block, 0); err != nil {
					l.t.Error(err)
					return
				}
				_ = f.Sync()
			}
		})
	}
	return func() { cancel(); work.Wait() }
}

// lossy makes all links of the directors slow and bad.
func lossy(l *lab) (end func()) {
	for _, n := range l.nodes {
		l.run("tc", "-n", n.ns, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "100ms", "50ms", "loss", "5%", "limit", "10000")
	}
	l.probe.lag = time.Second // before anybody asks it
	return func() {
		for _, n := range l.nodes {
			l.run("tc", "-n", n.ns, "qdisc", "del", "dev", "eth0", "root")
		}
	}
}
