package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkManyVIPs moves 300 addresses b.N times in each way, with ipvs-ha and with
// keepalived, and prints for how long nobody accepts packets for the first and the last of
// IPv4 and the last of IPv6, beside one address that moves alone.
func BenchmarkManyVIPs(b *testing.B) {
	hurry(b)
	table, first4, last4, last6 := manyTable()
	var excluded strings.Builder // an advertisement has no room for so many
	for line := range strings.Lines(table) {
		if _, after, ok := strings.Cut(line, "tcp://"); ok {
			address, _, _ := strings.Cut(after, ":80\"")
			fmt.Fprintf(&excluded, "\t\t%s dev eth0\n", strings.Trim(address, "[]"))
		}
	}
	one, many := []string{"10.9.0.100"}, []string{first4, last4, last6}
	var rows strings.Builder
	for _, c := range []struct {
		name, count string
		vips        []string // that are probed
		make        func(testing.TB) system
	}{
		{"ipvs-ha", "1", one, func(b testing.TB) system { return newCluster(b, vipTable, "lan") }},
		{"ipvs-ha", "300", many, func(b testing.TB) system {
			c := newCluster(b, table, "lan")
			for _, n := range c.nodes {
				n.config = manyConfig
			}
			return c
		}},
		{"keepalived", "1", one, func(b testing.TB) system { return newKeepalived(b, "1") }},
		{"keepalived", "301", many, func(b testing.TB) system {
			k := newKeepalived(b, "1")
			k.more = excluded.String()
			return k
		}},
	} {
		b.Run(c.name+"/"+c.count, func(b *testing.B) {
			s := c.make(b)
			s.net().addIPv6()
			s.start()
			for _, what := range []event{hostLoss, sigterm, transfer} {
				gaps, two := make([][]time.Duration, len(c.vips)), 0
				b.Run(string(what), func(b *testing.B) {
					clear(gaps) // of the run that does not count
					two = 0
					for range b.N {
						for i, m := range nobodyFor(s, what, c.vips) {
							gaps[i], two = append(gaps[i], m.nobody), two+m.overlap
						}
					}
				})
				if b.Failed() {
					return
				}
				if len(gaps[0]) == 0 {
					continue // not asked for
				}
				fmt.Fprintf(&rows, "| %s | %s | %s |", what, c.name, c.count)
				for _, g := range gaps {
					slices.Sort(g)
					fmt.Fprintf(&rows, " %d, %d ms |", g[len(g)/2].Milliseconds(), g[len(g)-1].Milliseconds())
				}
				fmt.Fprintf(&rows, " %d |\n", two)
			}
		})
	}
	fmt.Print("\n| event | system | VIPs | nobody: the first of IPv4, median and worst | the last of IPv4 | the last of IPv6 | two |\n|---|---|---|---|---|---|---|\n", rows.String())
	fmt.Printf("%s, host: %s\n", os.Getenv("IPVS_HA_BENCH_COMMAND"), os.Getenv("IPVS_HA_BENCH_HOST"))
}

// nobodyFor has an event strike the owner, and returns what each of some VIPs went
// through.
func nobodyFor(s system, what event, vips []string) []outcome {
	l := s.net()
	s.awaitWhole()
	former := s.owner()
	var probes []*probe
	for i, vip := range vips {
		p := l.newProbeFrom(1+i, vip, "eth0")
		defer p.close()
		probes = append(probes, p)
	}
	for _, p := range probes {
		l.await("owner that the probe sees", func() error {
			if p.owner() != former.name {
				return fmt.Errorf("%q, not %s", p.owner(), former.name)
			}
			return nil
		})
	}
	s.strike(what, former)
	var all []outcome
	for _, p := range probes {
		p.awaitOwner(l, former.name)
		gaps, overlap := p.moves()
		all = append(all, outcome{nobody: slices.Max(gaps), overlap: overlap})
	}
	s.heal(what, former)
	return all
}
