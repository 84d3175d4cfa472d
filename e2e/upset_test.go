package e2e_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/api"
)

// clockStep sets the clock of the whole machine.
func clockStep(by time.Duration) func(*lab, *node) func() {
	return func(l *lab, _ *node) func() {
		l.stepClock(by)
		return func() { l.stepClock(-by) }
	}
}

func (l *lab) stepClock(by time.Duration) {
	l.t.Helper()
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_REALTIME, &now)
	if err == nil {
		now.Sec += int64(by / time.Second)
		err = unix.ClockSettime(unix.CLOCK_REALTIME, &now)
	}
	if err != nil {
		l.t.Fatalf("set the clock: %v", err)
	}
}

// frozenDisk lets every write to the owner's data directory wait, and has there be one:
// a leader needs its disk for changes only. An agent that has ended over it is started
// again.
func frozenDisk(l *lab, owner *node) func() {
	owner.disk("--freeze")
	ctx, cancel := context.WithCancel(l.t.Context())
	var writer sync.WaitGroup
	writer.Go(func() { // whether it is kept does not matter
		_, _ = api.NewClient("unix://"+owner.socket).Write(ctx, weightWrite(0, rand.IntN(1000)))
	})
	return func() {
		owner.disk("--unfreeze")
		cancel()
		writer.Wait()
		l.await(owner.name+" with its disk", func() error {
			if owner.ended() { // as systemd would
				owner.kill(syscall.SIGKILL)
				owner.start()
			}
			_, err := owner.status()
			return err
		})
	}
}

// flushedOwner flushes the owner's ruleset again and again.
func flushedOwner(l *lab, owner *node) func() { return l.flushing(owner) }

// flushedStandbys flushes the others'.
func flushedStandbys(l *lab, owner *node) func() { return l.flushing(l.others(owner)...) }

// flushing flushes the nodes' rulesets every few milliseconds until it is told to stop.
func (l *lab) flushing(nodes ...*node) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var flushers sync.WaitGroup
	for _, n := range nodes {
		there, err := netns.GetFromName(n.ns)
		if err != nil {
			l.t.Fatal(err)
		}
		flush := func() error {
			conn, err := nftables.New(nftables.WithNetNSFd(int(there)))
			if err != nil {
				return err
			}
			conn.FlushRuleset()
			return conn.Flush()
		}
		if err := flush(); err != nil { // one at least
			l.t.Fatalf("flush the ruleset of %s: %v", n.name, err)
		}
		flushers.Go(func() {
			defer there.Close()
			tick := time.NewTicker(25 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					_ = flush()
				}
			}
		})
	}
	return func() { cancel(); flushers.Wait() }
}
