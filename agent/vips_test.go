package agent

import (
	"encoding/json"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// TestNoInterfaceForVIPs: a director whose configuration lacks vip.interface says so. It
// is unfit only when the operator lists addresses: those of services may be somebody
// else's business.
func TestNoInterfaceForVIPs(t *testing.T) {
	for _, c := range []struct {
		name, table string
		says, unfit bool
	}{
		{"listed", `{"vips":[{"address":"10.9.0.100/32"}],"services":[]}`, true, true},
		{"found", `{"services":[{"service":"tcp://10.9.0.100:80"}]}`, true, false},
		{"none", `{"vips":[],"services":[{"service":"tcp://10.9.0.100:80"}]}`, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var document ipvs.Document
			if err := json.Unmarshal([]byte(c.table), &document); err != nil {
				t.Fatal(err)
			}
			table, err := document.Table()
			if err != nil {
				t.Fatal(err)
			}
			a := &Agent{}
			a.vips.Store(a.mapVIPs(table))
			var status api.NodeStatus
			a.vipStatus(&status)
			const want = "this node's configuration has no vip.interface: it takes none of the table's 1 virtual addresses"
			if says := len(status.Errors) == 1 && status.Errors[0].Message == want; says != c.says || !says && len(status.Errors) > 0 {
				t.Errorf("status says %v", status.Errors)
			}
			if m := a.vips.Load(); m.unfit && len(m.refused) > 0 != c.unfit {
				t.Errorf("unfit: %t, because of %v", m.unfit, m.refused)
			}
		})
	}
}
