package e2e_test

import (
	"fmt"
	"os/exec"
	"strings"
)

// A way is one direction of a link between two nodes.
type way struct{ from, to *node }

// cut drops every frame that goes one of these ways, on the bridge, and returns what
// mends it. The lab has one cut at a time.
func (l *lab) cut(ways ...way) (mend func()) {
	l.t.Helper()
	rules := "table bridge " + l.bridge + " { chain forward { type filter hook forward priority 0;\n"
	for _, w := range ways {
		rules += fmt.Sprintf("iifname %s oifname %s drop\n", w.from.ns, w.to.ns)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules + "}\n}\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("cut links: %v\n%s", err, out)
	}
	return func() { l.run("nft", "delete", "table", "bridge", l.bridge) }
}

// apart are the ways between a node and others.
func apart(n *node, in, out bool, others ...*node) (ways []way) {
	for _, o := range others {
		if in {
			ways = append(ways, way{o, n})
		}
		if out {
			ways = append(ways, way{n, o})
		}
	}
	return ways
}

// cutFromAll cuts a node off from all others, not from the clients.
func cutFromAll(in, out bool) func(*lab, *node) func() {
	return func(l *lab, owner *node) func() { return l.cut(apart(owner, in, out, l.others(owner)...)...) }
}

// cutFromOne cuts a node off from the others' i-th.
func cutFromOne(i int) func(*lab, *node) func() {
	return func(l *lab, owner *node) func() { return l.cut(apart(owner, true, true, l.others(owner)[i])...) }
}

// cutRing leaves of three links one direction each, around a ring.
func cutRing(l *lab, _ *node) func() {
	var ways []way
	for i, n := range l.nodes {
		ways = append(ways, way{n, l.nodes[(i+1)%len(l.nodes)]})
	}
	return l.cut(ways...)
}
