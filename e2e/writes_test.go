package e2e_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
)

const (
	sustainedRate    = 200 // changes a second
	sustainedClients = 16
)

// sustained is what a time of steady writes came to.
type sustained struct {
	failed       []error
	took         []time.Duration // of each write that was committed
	lasted       time.Duration
	middle, last []float64 // memory of each agent at half the time and at the end, MiB
	moved        error     // leadership has
}

// sustain has clients over all nodes make changes at a steady rate, for d. Changes
// that nobody has had time for wait, so that the rate is lower when they pile up.
func (c cluster) sustain(rate int, d time.Duration) (o sustained) {
	c.t.Helper()
	leader, terms := c.awaitLeader(), c.terms()
	due := make(chan struct{}, sustainedClients)
	var mu sync.Mutex
	var clients sync.WaitGroup
	for w := range sustainedClients {
		client := c.nodes[w%len(c.nodes)].client()
		clients.Go(func() {
			i := w
			for range due {
				began := time.Now()
				_, err := client.Write(c.t.Context(), weightChange(i%1000, api.WaitNone))
				took := time.Since(began)
				i += sustainedClients
				mu.Lock()
				if err != nil {
					o.failed = append(o.failed, err)
				} else {
					o.took = append(o.took, took)
				}
				mu.Unlock()
			}
		})
	}
	began := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	for sent := 0; time.Since(began) < d; {
		if sent < int(time.Since(began).Seconds()*float64(rate)) {
			due <- struct{}{}
			sent++
		} else {
			<-tick.C
		}
		if o.middle == nil && time.Since(began) > d/2 {
			o.middle = c.allMemory()
		}
	}
	tick.Stop()
	o.last = c.allMemory()
	close(due)
	clients.Wait()
	o.lasted = time.Since(began)
	if now := c.awaitLeader(); now != leader {
		o.moved = fmt.Errorf("%s leads, %s did", now.name, leader.name)
	} else if after := c.terms(); !maps.Equal(after, terms) {
		o.moved = fmt.Errorf("the terms were %v and are %v", terms, after)
	}
	return o
}

func (o sustained) rate() float64 { return float64(len(o.took)) / o.lasted.Seconds() }

func (c cluster) allMemory() (all []float64) {
	for _, n := range c.nodes {
		all = append(all, n.memory())
	}
	return all
}

// sustainedTime is how long the benchmark writes: IPVS_HA_MINUTES, 1 when unset.
func sustainedTime(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv("IPVS_HA_MINUTES")
	if text == "" {
		return time.Minute
	}
	minutes, err := strconv.ParseFloat(text, 64)
	if err != nil || minutes <= 0 {
		t.Fatalf("IPVS_HA_MINUTES is %q, want minutes", text)
	}
	return time.Duration(minutes * float64(time.Minute))
}

// measureWrites writes at the rate that is asked for. Where the machine does not carry
// it, it writes at half of what it does carry too.
func measureWrites(b *testing.B, f *figureTable) {
	c := newAgents(b, "")
	c.replace(sizedTable(1000, 1))
	d := sustainedTime(b)
	c.sustain(sustainedRate, 5*time.Second) // does not count: memory grows to what it takes
	for rate := sustainedRate; ; {
		o := c.sustain(rate, d)
		leads := "the leader stays"
		if o.moved != nil {
			leads = o.moved.Error()
		}
		f.add(b, fmt.Sprintf("%d changes a second from %d clients, for %s", rate, sustainedClients, d), "1000 services",
			"%.0f a second committed, %d failed, %s; %s; memory at half the time %.0f MiB, at the end %.0f MiB", o.rate(), len(o.failed), leads, percentiles(o.took), o.middle, o.last)
		if err := errors.Join(o.failed...); err != nil {
			b.Logf("failed: %.2000v", err)
		}
		if o.rate() > 0.95*float64(rate) {
			return
		}
		rate = int(o.rate() / 2)
	}
}
