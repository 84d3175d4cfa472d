package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// loading is how long a table of 100,000 destinations may take to reach all kernels.
const loading = 3 * time.Minute

// BenchmarkAgent measures whole agents, three directors with VIPs in the profile lan,
// and prints a table for docs/benchmarks.md. Each part runs once, whatever b.N.
func BenchmarkAgent(b *testing.B) {
	var f figureTable
	for _, part := range []struct {
		name string
		run  func(*testing.B, *figureTable)
	}{
		{"changes", measureChanges},
		{"large", measureLargeTable},
		{"writes", measureWrites},
	} {
		b.Run(part.name, func(b *testing.B) {
			part.run(b, &f)
			b.ReportMetric(0, "ns/op")
		})
	}
	if len(f.rows) == 0 {
		return
	}
	fmt.Printf("\n%s, `%s`, Linux %s on a %s, host: %s\n\n", time.Now().Format("2 January 2006"), os.Getenv("IPVS_HA_BENCH_COMMAND"),
		fileText(b, "/proc/sys/kernel/osrelease"), processor(b), os.Getenv("IPVS_HA_BENCH_HOST"))
	fmt.Print("| what | table | figure |\n|---|---|---|\n", strings.Join(f.rows, ""), "\n")
}

// figureTable is the rows that are printed at the end.
type figureTable struct{ rows []string }

// add adds a row; size says how large the table is that it is about.
func (f *figureTable) add(b *testing.B, what, size, format string, args ...any) {
	figure := fmt.Sprintf(format, args...)
	b.Logf("%s, %s: %s", what, size, figure)
	f.rows = append(f.rows, fmt.Sprintf("| %s | %s | %s |\n", what, size, figure))
}

// sizedService is the i-th service: there are 1,000 at each of a few addresses.
func sizedService(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(100 + i/1000)}), uint16(1000+i%1000))
}

// sizedDestination is the d-th destination of each service, with a weight.
func sizedDestination(d int, weight int32) ipvs.Destination {
	return ipvs.Destination{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, 0, byte(1 + d)}), 80), Forward: ipvs.Masq, Weight: weight}
}

// sizedTable has services with so many destinations each, all of weight 1.
func sizedTable(services, each int) *ipvs.Document {
	doc := &ipvs.Document{Services: []ipvs.Service{}}
	for i := range services {
		s := ipvs.Service{Key: ipvs.ServiceAt(ipvs.TCP, sizedService(i)), Scheduler: "wrr"}
		for d := range each {
			s.Destinations = append(s.Destinations, sizedDestination(d, 1))
		}
		doc.Services = append(doc.Services, s)
	}
	return doc
}

// newAgents starts three directors without services. config is further lines of their
// configuration.
func newAgents(t testing.TB, config string) cluster {
	t.Helper()
	c := newCluster(t, "services: []\n", "lan")
	for _, n := range c.nodes {
		n.config += config
	}
	c.startAll()
	c.awaitVoters(c.awaitLeader(), "d1", "d2", "d3")
	return c
}

func (n *node) client() *api.Client { return api.NewClient("unix://" + n.socket) }

// replace makes doc, which has a service, the table, and returns how long it took to
// commit it and until all kernels had it.
func (c cluster) replace(doc *ipvs.Document) (committed, everywhere time.Duration) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), loading)
	defer cancel()
	client := c.others(c.awaitLeader())[0].client()
	began := time.Now()
	if _, err := client.Write(ctx, api.Write{Replace: doc, Wait: api.WaitNone}); err != nil {
		c.t.Fatal(err)
	}
	committed = time.Since(began)
	next, err := client.Write(ctx, weightChange(0, api.WaitAll)) // what has it has the table
	if err == nil {
		err = whole(next)
	}
	if err != nil {
		c.logs()
		c.t.Fatal(err)
	}
	return committed, time.Since(began)
}

// whole returns an error unless all three kernels were asked and have the write.
func whole(r api.WriteResult) error {
	if len(r.Pending) > 0 || len(r.Skipped) > 0 {
		return fmt.Errorf("not in all kernels: pending %v, skipped %v", r.Pending, r.Skipped)
	}
	return nil
}

var weights atomic.Int32 // of changes, so that each is one

// weightChange is a write that gives the first destination of the i-th service a
// weight that it has not had.
func weightChange(i int, wait api.Wait) api.Write {
	d := sizedDestination(0, 2+weights.Add(1))
	return api.Write{Wait: wait, Changes: []ipvs.Change{{Op: ipvs.SetDestination, Key: ipvs.ServiceAt(ipvs.TCP, sizedService(i)), Destination: &d}}}
}

// changes has writers change weights, each times times at services of its own, one
// after the other, until all kernels have each. Of several writers the first asks the
// first node, and so on. What a change of the leader leaves unanswered is asked again,
// under the same id, and counted.
func (c cluster) changes(writers, times, services int, nodes ...*node) (took []time.Duration, again int) {
	c.t.Helper()
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for w := range writers {
		client := nodes[w%len(nodes)].client()
		wg.Go(func() {
			for i := range times {
				began := time.Now()
				repeats, err := everywhere(c.t.Context(), client, weightChange((w+i*writers)%services, api.WaitAll))
				mu.Lock()
				took, again = append(took, time.Since(began)), again+repeats
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		c.logs()
		c.t.Fatal(err)
	}
	return took, again
}

// everywhere writes until all kernels have w, and returns how often that was repeated.
func everywhere(ctx context.Context, client *api.Client, w api.Write) (repeats int, err error) {
	w.ID = api.NewID()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ; ; repeats++ {
		r, err := client.Write(ctx, w)
		if err == nil {
			err = whole(r)
		}
		var p *api.Problem
		if err == nil || ctx.Err() != nil || errors.As(err, &p) && p.Kind != api.NoLeader && p.Kind != api.Unknown {
			return repeats, err
		}
	}
}

// percentile returns the value that a share of the values do not exceed.
func percentile(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[min(int(share*float64(len(all))), len(all)-1)]
}

// percentiles are words for the median and the 99th percentile.
func percentiles(all []time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s, of %d", milliseconds(percentile(all, 0.5)), milliseconds(percentile(all, 0.99)), len(all))
}

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// memory returns what of the agent is in memory, in MiB.
func (n *node) memory() float64 {
	n.lab.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		n.lab.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				n.lab.t.Fatal(err)
			}
			return kib / 1024
		}
	}
	n.lab.t.Fatalf("no VmRSS of %s", n.name)
	return 0
}

// memories are those of all nodes, in words.
func (c cluster) memories() string {
	var words []string
	for _, mib := range c.allMemory() {
		words = append(words, fmt.Sprintf("%.0f", mib))
	}
	return strings.Join(words, ", ") + " MiB"
}
