package agent

import (
	"testing"

	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// TestStance: the daemons of an active director run while there may be packets to tell
// of, and before; the VIPs need a leader whose daemons have had their time.
func TestStance(t *testing.T) {
	for _, c := range []struct {
		name   string
		stance stance
		role   syncd.Role
		may    bool
	}{
		{"standby", stance{}, syncd.Standby, false},
		{"candidate", stance{stands: true, daemons: true}, syncd.Active, false},
		{"leader", stance{leads: true}, syncd.Active, false},
		{"leader with its daemons", stance{leads: true, daemons: true}, syncd.Active, true},
		{"leader whose daemons hang", stance{leads: true, overdue: true}, syncd.Active, true},
		{"owner that leads no more", stance{owner: true, daemons: true}, syncd.Active, false},
	} {
		if role, may := c.stance.role(), c.stance.mayOwn(); role != c.role || may != c.may {
			t.Errorf("%s: role %v, may own %t; want %v, %t", c.name, role, may, c.role, c.may)
		}
	}
}
