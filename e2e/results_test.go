package e2e_test

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A tally is what the probe saw while faults struck.
type tally struct {
	runs    int
	gaps    []time.Duration // for each move of the role, how long nobody accepted packets
	overlap int             // packets accepted by two
}

// report keeps the tally for the table and fails when two have accepted packets.
func report(t *testing.T, name string, o tally) {
	t.Helper()
	results.add(name, o)
	t.Logf("%d moves, nobody accepted for %v; %d packets accepted by two", len(o.gaps), o.gaps, o.overlap)
	if o.overlap > 0 {
		t.Errorf("%d packets were taken while another director took them too", o.overlap)
	}
}

// results are the tallies of this process, for a table in docs/benchmarks.md.
var results table

type table struct {
	mu   sync.Mutex
	rows []string
}

func (r *table) add(name string, o tally) {
	gaps := slices.Sorted(slices.Values(o.gaps))
	row := fmt.Sprintf("| %s | %d | %d | %d |", name, o.runs, len(gaps), o.overlap)
	for _, share := range []float64{0.5, 0.95, 1} {
		if len(gaps) == 0 {
			row += " – |"
			continue
		}
		gap := gaps[max(int(share*float64(len(gaps))+0.999)-1, 0)]
		row += fmt.Sprintf(" %d ms |", gap.Milliseconds())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
}

// print writes the table, with what a reader needs to know about the figures.
func (r *table) print(w io.Writer) {
	if len(r.rows) == 0 {
		return
	}
	kernel := "unknown kernel"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = "Linux " + unix.ByteSliceToString(u.Release[:])
	}
	fmt.Fprintf(w, "%s, `%s`, %s on %s.\n\n", time.Now().UTC().Format("2 January 2006"), os.Getenv("IPVS_HA_BENCH_COMMAND"), kernel, os.Getenv("IPVS_HA_BENCH_HOST"))
	fmt.Fprintln(w, "| fault | runs | moves | two | nobody: median | 95 % | worst |\n|---|---|---|---|---|---|---|")
	fmt.Fprintln(w, strings.Join(r.rows, "\n"))
}
