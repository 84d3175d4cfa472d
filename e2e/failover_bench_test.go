package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

const benchTable = `
services:
  - service: tcp://10.9.0.100:80
    scheduler: rr
    destinations: [{address: "10.9.0.21:80", forward: droute}, {address: "10.9.0.22:80", forward: droute}]
`

var benchService = netip.MustParseAddrPort("10.9.0.100:80")

// A contestant is a system that is measured, with its load.
type contestant struct {
	name string
	system
	held *held
}

func (c *contestant) client() string { return c.net().prefix + "c2" }

// newContestant adds to a system two real servers, and a client that holds 50
// connections.
func newContestant(name string, s system) *contestant {
	l := s.net()
	l.realServer("r1", "10.9.0.21", "10.9.0.100")
	l.realServer("r2", "10.9.0.22", "10.9.0.100")
	c := &contestant{name: name, system: s}
	for _, n := range l.nodes {
		n.nice = 0 // as the clients: on two processors whoever comes first makes the others late
	}
	l.host(c.client(), "10.9.0.51")
	s.start()
	c.held = l.hold(c.client(), 50, benchService)
	c.held.replace = true
	c.held.rests.Store(true)
	return c
}

// outcome is what one event did.
type outcome struct {
	calm    time.Duration // longest gap in the second before
	gap     time.Duration // for new connections
	inVain  time.Duration // the longest in which somebody came in vain
	nobody  time.Duration // longest while in which no director accepted packets
	overlap int           // packets accepted by two, until the event's cause was gone
	moved   bool
	marks   []mark // of a loss of the host
	survey
}

// hangs is how long a disk hangs when nobody takes the VIP meanwhile.
const hangs = 5 * time.Second

// suffer measures one event.
func (c *contestant) suffer(what event) (o outcome) {
	l := c.net()
	c.held.rests.Store(false)
	defer c.held.rests.Store(true) // while another's event is measured
	c.awaitWhole()
	c.held.awaitMature()
	p := l.newProbe("10.9.0.100")
	defer p.close()
	come := l.newcomers(c.client(), 5*time.Millisecond, benchService)
	defer come.close()
	former := c.owner()
	l.await("owner that the probe sees", func() error {
		if p.owner() != former.name {
			return fmt.Errorf("%q, not %s", p.owner(), former.name)
		}
		return nil
	})
	time.Sleep(time.Second) // the gaps of this second are those of a calm system

	c.held.pause <- true
	struck := time.Now()
	o.calm, _ = come.gap(struck.Add(-time.Second), struck)
	c.strike(what, former)
	if what == diskHang {
		for time.Since(struck) < hangs && !p.takenBy(former.name, struck) {
			time.Sleep(probeInterval)
		}
	} else {
		l.await("owner that is not "+former.name, func() error {
			if !p.takenBy(former.name, struck) {
				return fmt.Errorf("none")
			}
			return nil
		})
	}
	o.moved = p.takenBy(former.name, struck)
	served := come.awaitServed(l, time.Now())
	o.survey = c.held.survey(struck, served)
	o.gap, o.inVain = come.gap(struck, served)
	if what == hostLoss {
		o.marks = marksOf(c.system, former, p.last(former.name))
	}
	gaps, overlap := p.moves()
	o.overlap = overlap
	if len(gaps) > 0 {
		o.nobody = slices.Max(gaps)
	}
	c.heal(what, former)
	c.held.pause <- false
	return o
}

// takenBy reports whether another director than former has accepted packets that were
// sent after a time.
func (p *probe) takenBy(former string, after time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.accepts, func(a acceptance) bool { return a.director != former && a.sent.After(after) })
}

var benchEvents = []event{hostLoss, kill9, sigstop, sigterm, transfer, drain, rollingRestart, diskHang}

// runs is how often an event is measured where others are n times. A rolling restart
// takes as long as five of them, and the bench half an hour at most: it is measured half
// as often and with one profile, since a planned move does not wait for a lease.
func (what event) runs(profile string, n int) int {
	switch {
	case what != rollingRestart:
		return n
	case profile == "lan":
		return max(n/2, 1)
	}
	return 0
}

// BenchmarkFailover runs ipvs-ha beside keepalived: each event as often as runs says of
// b.N, by turns, after one run that does not count. It prints a table for
// docs/benchmarks.md, of what there is when something fails.
func BenchmarkFailover(b *testing.B) {
	keepalived, err := exec.Command(keepalivedPath(b), "--version").CombinedOutput()
	if err != nil {
		b.Fatal(err)
	}
	version, _, _ := strings.Cut(string(keepalived), "\n")
	var table, notes strings.Builder
	for _, pair := range []struct{ profile, advert string }{{"lan", "1"}, {"fast", "0.1"}} {
		b.Run(pair.profile, func(b *testing.B) {
			ha := newCluster(b, benchTable, pair.profile)
			for _, n := range ha.nodes {
				n.ownDisk()
			}
			contestants := []*contestant{
				newContestant("ipvs-ha, `"+pair.profile+"`", ha),
				newContestant("keepalived, "+pair.advert+" s", newKeepalived(b, pair.advert)),
			}
			for _, what := range benchEvents {
				if what.runs(pair.profile, b.N) == 0 {
					continue
				}
				outcomes := make([][]outcome, len(contestants))
				b.Run(string(what), func(b *testing.B) {
					clear(outcomes) // of the run that does not count
					for range what.runs(pair.profile, b.N) {
						for i, c := range contestants {
							outcomes[i] = append(outcomes[i], c.suffer(what))
						}
					}
					b.ReportMetric(0, "ns/op")
					for i, name := range []string{"ipvs-ha-ms", "keepalived-ms"} {
						median, _ := gapsOf(outcomes[i])
						b.ReportMetric(float64(median.Milliseconds()), name)
					}
				})
				for i, c := range contestants {
					if len(outcomes[i]) == 0 {
						continue // not asked for
					}
					table.WriteString(row(what, c.name, outcomes[i], outcomes[len(outcomes)-1]))
					if what == hostLoss {
						notes.WriteString(course(c.name, outcomes[i]))
					}
				}
				if b.Failed() {
					break
				}
			}
			for _, c := range contestants {
				fmt.Fprintf(&notes, "%s: %d of the held connections had to be replaced between events, because a kernel knew them wrongly.\n", c.name, c.held.replaced)
			}
		})
	}
	fmt.Printf("\n%s, `%s`, %s, Linux %s on a %s, host: %s\n\n", time.Now().Format("2 January 2006"), os.Getenv("IPVS_HA_BENCH_COMMAND"), version,
		fileText(b, "/proc/sys/kernel/osrelease"), processor(b), os.Getenv("IPVS_HA_BENCH_HOST"))
	fmt.Print("| event | system | gap: median | worst | in vain: median | worst | nobody | two | held: old | young | calm | shorter than keepalived |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n", table.String(), "\n", notes.String(), "\n")
}

// course tells what a loss of the host took in each run and, of a system that says it, when
// each step was done: the median and the worst.
func course(name string, outcomes []outcome) string {
	var gaps []string
	after := map[string][]time.Duration{}
	var steps []string
	for _, o := range outcomes {
		gaps = append(gaps, fmt.Sprint(o.gap.Milliseconds()))
		for _, m := range o.marks {
			if after[m.step] == nil {
				steps = append(steps, m.step)
			}
			after[m.step] = append(after[m.step], m.after)
		}
	}
	text := fmt.Sprintf("%s: %s: gaps of %s ms", name, hostLoss, strings.Join(gaps, ", "))
	for i, step := range steps {
		median, worst := middle(after[step])
		before := ", "
		if i == 0 {
			before = "; after the last packet that the lost director took: "
		}
		text += fmt.Sprintf("%s%s %d (%d)", before, step, median.Milliseconds(), worst.Milliseconds())
	}
	return text + ".\n"
}

func fileText(b testing.TB, path string) string {
	b.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func processor(b testing.TB) string {
	b.Helper()
	for line := range strings.Lines(fileText(b, "/proc/cpuinfo")) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t :\n")
		}
	}
	return "processor of unknown name"
}

// gapsOf returns the median and the longest gap for new connections.
func gapsOf(outcomes []outcome) (median, worst time.Duration) {
	return spread(outcomes, func(o outcome) time.Duration { return o.gap })
}

func spread(outcomes []outcome, of func(outcome) time.Duration) (median, worst time.Duration) {
	var all []time.Duration
	for _, o := range outcomes {
		all = append(all, of(o))
	}
	return middle(all)
}

// middle returns the median and the longest.
func middle(all []time.Duration) (median, worst time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2, all[len(all)-1]
}

// row is a line of the table. The last column compares medians with keepalived's.
func row(what event, name string, outcomes, keepalived []outcome) string {
	median, worst := gapsOf(outcomes)
	theirs, _ := gapsOf(keepalived)
	inVain, worstInVain := spread(outcomes, func(o outcome) time.Duration { return o.inVain })
	nobody, _ := spread(outcomes, func(o outcome) time.Duration { return o.nobody })
	calm, _ := spread(outcomes, func(o outcome) time.Duration { return o.calm })
	var all survey
	overlap, moved := 0, 0
	for _, o := range outcomes {
		all.add(o.survey)
		overlap += o.overlap
		if o.moved {
			moved++
		}
	}
	title := string(what)
	if moved < len(outcomes) {
		title += fmt.Sprintf(" (%d of %d moved)", moved, len(outcomes))
	}
	ratio := "–"
	if strings.HasPrefix(name, "ipvs-ha") && median > 0 {
		ratio = fmt.Sprintf("%.1f times", float64(theirs)/float64(median))
	}
	ms := func(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s | %d | %d of %d | %d of %d | %s | %s |\n",
		title, name, ms(median), ms(worst), ms(inVain), ms(worstInVain), ms(nobody), overlap, all.oldAlive, all.old, all.youngAlive, all.young, ms(calm), ratio)
}
