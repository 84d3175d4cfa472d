package agent_test

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
)

const (
	steadyRate    = 200 // changes a second, of all clients
	steadyClients = 16
)

// TestSteadyWrites changes weights at a steady rate, through all nodes, for IPVS_HA_STEADY
// (2s when that is unset): none fails, the leader stays, and memory does not grow. The
// rate must be kept when the time is set, that is where nothing else runs.
func TestSteadyWrites(t *testing.T) {
	lasts, demanding := 2*time.Second, false
	if text := os.Getenv("IPVS_HA_STEADY"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil || lasts <= 0 {
			t.Fatalf("IPVS_HA_STEADY=%s: must be a time such as 1m", text)
		}
		demanding = true
	}
	nodes := start(t, memkernel.New(), memkernel.New(), memkernel.New())
	doc := largeDocument(10_000, 1)
	if _, err := nodes[0].client.Write(t.Context(), api.Write{Replace: doc}); err != nil {
		t.Fatal(err)
	}
	before := rises(t, nodes[0])
	due := make(chan int)
	var clients sync.WaitGroup
	var committed, failed atomic.Int64
	for i := range steadyClients {
		client := nodes[i%len(nodes)].client
		clients.Go(func() {
			for n := range due {
				s := doc.Services[n%len(doc.Services)]
				d := s.Destinations[n%len(s.Destinations)]
				d.Weight = int32(n%1000 + 2)
				change := ipvs.Change{Op: ipvs.SetDestination, Key: s.Key, Destination: &d}
				if _, err := client.Write(t.Context(), api.Write{Changes: []ipvs.Change{change}, Wait: api.WaitNone}); err != nil {
					failed.Add(1)
					t.Errorf("change %d: %v", n, err)
					continue
				}
				committed.Add(1)
			}
		})
	}
	tick := time.NewTicker(time.Second / steadyRate)
	defer tick.Stop()
	began, half := time.Now(), 0
	for n := 0; time.Since(began) < lasts; {
		if n < int(time.Since(began).Seconds()*steadyRate) {
			due <- n
			n++
		} else {
			<-tick.C
		}
		if half == 0 && time.Since(began) > lasts/2 {
			half = resident(t)
		}
	}
	end := resident(t)
	close(due)
	clients.Wait()
	rate := float64(committed.Load()) / time.Since(began).Seconds()
	t.Logf("%d changes, %.0f a second, for %v; %d failed; memory of all three agents at half the time %d MiB, at the end %d MiB", committed.Load(), rate, lasts, failed.Load(), half, end)
	if after := rises(t, nodes[0]); after != before {
		t.Errorf("%d times a director became active, %d before: the leader has changed", after, before)
	}
	if demanding && rate < 0.95*steadyRate {
		t.Errorf("%.0f a second, want %d", rate, steadyRate)
	}
	if demanding && end > half+half/2+20 { // the garbage collector lets it go up and down by a third
		t.Errorf("memory grows: %d MiB at half the time, %d MiB at the end", half, end)
	}
}

// rises is how often a director has become the active one.
func rises(t *testing.T, n *node) (count int) {
	t.Helper()
	events, err := n.client.Events(t.Context(), api.EventQuery{Limit: api.MaxEvents})
	if err != nil || len(events.Silent) > 0 {
		t.Fatal(events.Silent, err)
	}
	for _, e := range events.Events {
		if e.Kind == "active" {
			count++
		}
	}
	return count
}

// resident is this process's resident memory, in MiB.
func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatal("no VmRSS in /proc/self/status")
	return 0
}
