package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// BenchmarkManyVIPs has keepalived move what TestManyVIPs has ipvs-ha move: how long
// nobody accepts packets for the first, the middle and the last of 300 addresses. Not
// after kill -9: keepalived leaves the addresses where they are then.
func BenchmarkManyVIPs(b *testing.B) {
	k := newKeepalived(b, "1")
	table, first, middle, last := manyTable()
	var more strings.Builder
	for line := range strings.Lines(table) {
		if _, after, ok := strings.Cut(line, "tcp://"); ok {
			address, _, _ := strings.Cut(after, ":80\"")
			fmt.Fprintf(&more, "\t\t%s dev eth0\n", strings.Trim(address, "[]"))
		}
	}
	k.more = more.String()
	for i, n := range k.nodes {
		k.address(n.ns, "eth0", fmt.Sprintf("2001:db8::%d/64", 11+i))
	}
	k.start()
	for _, what := range []event{transfer, sigterm} {
		var rows [3][]time.Duration
		two := 0
		for range b.N {
			probes := []*probe{k.newProbe(first), k.newProbeFrom(2, middle, "eth0"), k.newProbeFrom(3, last, "eth0")}
			for _, p := range probes {
				p.awaitOwner(k.lab, "k2")
			}
			k.strike(what, k.nodes[0])
			for i, p := range probes {
				p.awaitOwner(k.lab, "k1")
				gaps, overlap := p.moves()
				rows[i], two = append(rows[i], gaps[0]), two+overlap
				p.close()
			}
			k.heal(what, k.nodes[0])
			k.awaitWhole()
		}
		fmt.Printf("keepalived, %s: first, middle and last of 300 %v; %d packets accepted by two\n", what, rows, two)
	}
}
