package agent

import (
	"time"

	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// daemonsPatience is how long a new leader's VIPs wait for its sync daemons. They are
// started while the first lease is asked for. A start that fails is an answer too; only
// a kernel that gives none in time is not waited for.
const daemonsPatience = 100 * time.Millisecond

// A stance is how far this director is with its role. A role is taken from the inside
// out, table, sync daemons, VIPs, and left the other way round: what an owner forwards
// must be told to the others, and a kernel with a backup daemon may refuse to forward
// at all (sysctl backup_only).
type stance struct {
	leads   bool          // this node leads, as far as it knows
	daemons bool          // what could be done about the daemons of an active director is done
	waited  time.Duration // since it was asked for
	owner   bool          // packets for VIPs may be accepted here
}

// role is what the kernel's table and daemons are to be like.
func (s stance) role() syncd.Role {
	if s.leads || s.owner {
		return syncd.Active
	}
	return syncd.Standby
}

// mayOwn reports whether this host may own the VIPs while its lease runs.
func (s stance) mayOwn() bool { return s.leads && (s.daemons || s.waited >= daemonsPatience) }
