package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/cluster"
)

func TestTellRecovery(t *testing.T) {
	d1 := cluster.Member{Name: "d1", ID: "a1", Voter: true, Local: true}
	d2 := cluster.Member{Name: "d2", ID: "a2", Voter: true}
	w := cluster.Member{Name: "w1", ID: "a3", Voter: true, Witness: true}
	d4 := cluster.Member{Name: "a4", ID: "a4"}
	var out bytes.Buffer
	tellRecovery(&out, "lb", &cluster.Recovery{
		ClusterID: "c0", Node: d1, Members: []cluster.Member{d4, d1, d2, w}, Dead: []cluster.Member{d2, w},
		Others: []cluster.Member{d4}, LastIndex: 120, LastTerm: 7,
	})
	want := `Cluster lb (id c0), from d1's copy: its log ends at index 120 of term 7.

members before  a4, no vote; d1 (a1); d2 (a2); w1 (a3), witness
dead            d2 (a2); w1 (a3), witness
members after   d1, with a new cluster id

Writes that only the dead had are lost, acknowledged ones too. If one of the dead still runs, or is started with its old data directory
beside others of them, two clusters serve the VIPs.
Not of the new cluster, and to be emptied before they join it: a4, no vote. Do not run recover on them.
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
