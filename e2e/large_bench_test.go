package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
)

const (
	largeServices = 10_000
	largeEach     = 10
	settling      = 10 * time.Second // for the garbage of a load to go; there is nothing to wait for
)

// measureLargeTable measures memory and start-up, and what work on a table of 100,000
// destinations takes and costs those who change something meanwhile.
func measureLargeTable(b *testing.B, f *figureTable) {
	c := newAgents(b, "reconcile: {interval: 1h}\n") // only when it is asked for
	none, ten, hundred := "0 destinations", "10000 destinations", "100000 destinations"
	f.add(b, "an agent starts, until it is whole", none, "%s", milliseconds(c.restart(c.others(c.awaitLeader())[0])))
	time.Sleep(settling)
	f.add(b, "memory of each agent", none, "%s", c.memories())
	c.replace(sizedTable(largeServices/10, largeEach))
	time.Sleep(settling)
	f.add(b, "memory of each agent", ten, "%s", c.memories())

	committed, everywhere := c.replace(sizedTable(largeServices, largeEach))
	f.add(b, "apply, committed", hundred, "%s", milliseconds(committed))
	f.add(b, "apply, in all three kernels, which had a tenth of it", hundred, "%s", milliseconds(everywhere))
	f.add(b, "memory of each agent, at once", hundred, "%s", c.memories())
	time.Sleep(settling)
	f.add(b, "memory of each agent", hundred, "%s", c.memories())

	leader := c.awaitLeader()
	writer, other := c.others(leader)[0], c.others(leader)[1]
	idle, _ := c.changes(1, 200, largeServices, writer)
	f.add(b, "one change, idle", hundred, "%s", percentiles(idle))
	during := func(what string, work func()) {
		took, failed := c.changesWhile(writer, work)
		f.add(b, "one change, "+what, hundred, "%s, %d failed; p99 is %.1f times that of idle (at most 5)", percentiles(took), failed,
			percentile(took, 0.99).Seconds()/percentile(idle, 0.99).Seconds())
	}
	var rounds []time.Duration
	reconcile := func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(b.Context(), loading)
		defer cancel()
		if err := leader.client().Reconcile(ctx); err != nil {
			b.Error(err)
		}
		rounds = append(rounds, time.Since(began))
	}
	reconcile()
	f.add(b, "all three compare kernel and table", hundred, "%s", milliseconds(rounds[0]))
	during("while all compare kernel and table", func() { reconcile(); reconcile() })

	var took time.Duration
	during("while another agent restarts", func() { took = c.restart(other) })
	f.add(b, "an agent starts, until it is whole", hundred, "%s", milliseconds(took))
	other.kill(syscall.SIGTERM)
	other.emptyHost()
	during("while the empty kernel of another is filled", func() { took = c.restart(other) })
	f.add(b, "an agent starts on a host that has booted, until it is whole", hundred, "%s", milliseconds(took))
}

// emptyHost gives a stopped agent another namespace, as if its host had booted. To
// delete everything from a kernel is something else: for two minutes it then looks for
// each new destination among all those that are gone.
func (n *node) emptyHost() {
	n.lab.t.Helper()
	n.lab.run("ip", "link", "del", n.ns)
	n.lab.run("ip", "netns", "del", n.ns)
	n.lab.host(n.ns, n.address)
}

// changesWhile changes weights, one after the other, for as long as work lasts. Each is
// waited for in the leader's kernel: others are away, or being filled.
func (c cluster) changesWhile(writer *node, work func()) (took []time.Duration, failed int) {
	c.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	client := writer.client()
	for i := 0; ; i++ {
		select {
		case <-done:
			return took, failed
		default:
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), patience)
		began := time.Now()
		_, err := client.Write(ctx, weightChange(i%largeServices, api.WaitLeader))
		cancel()
		if err != nil {
			c.t.Logf("a change: %v", err)
			failed++
			continue
		}
		took = append(took, time.Since(began))
	}
}

// restart stops an agent and starts it, and returns how long it took from its start until
// its kernel had the table and its daemon ran.
func (c cluster) restart(n *node) time.Duration {
	n.kill(syscall.SIGTERM)
	began := time.Now()
	n.start()
	ctx, cancel := context.WithTimeout(c.t.Context(), loading)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.restarted(n)
		if err == nil {
			return time.Since(began)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Errorf("%s after its restart: %v", n.name, err)
			return 0
		}
	}
}

func (c cluster) restarted(n *node) error {
	s, err := n.status()
	if err != nil {
		return err
	}
	for _, m := range s.Nodes {
		switch {
		case m.Name != n.name:
		case len(m.SyncDaemons) != 1 || len(m.Errors) > 0:
			return fmt.Errorf("daemons %v, errors %v", m.SyncDaemons, m.Errors)
		case m.AppliedRevision+50 < s.Revision: // others go on to write
			return fmt.Errorf("revision %d of %d", m.AppliedRevision, s.Revision)
		default:
			return nil
		}
	}
	return errors.New("it is not listed")
}
