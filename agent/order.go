package agent

import (
	"sync"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// The VIPs of a new leader wait for its sync daemons, but not for long. They are started
// while the first lease is asked for, or before; a start that fails is an answer too.
const (
	// daemonsPatience: what is not told to the others for some milliseconds costs less
	// than packets that nobody takes.
	daemonsPatience = 20 * time.Millisecond
	// forwardPatience is for a kernel that forwards nothing beside a backup daemon.
	forwardPatience = time.Second
)

// patience returns how long the VIPs wait for the daemons.
func patience(backupOnly bool) time.Duration {
	if backupOnly {
		return forwardPatience
	}
	return daemonsPatience
}

// A stance is how far this director is with its role. A role is taken from the inside
// out, table, sync daemons, VIPs, and left the other way round: what an owner forwards
// must be told to the others, and a kernel with a backup daemon may refuse to forward
// at all (sysctl backup_only). Daemons take longer to start than an election, and start
// while it is under way.
type stance struct {
	leads   bool // this node leads, as far as it knows
	stands  bool // it stands for election, and would have the lease at once
	daemons bool // what could be done about the daemons of an active director is done
	overdue bool // that takes too long
	owner   bool // packets for VIPs may be accepted here
}

// role is what the kernel's table and daemons are to be like.
func (s stance) role() syncd.Role {
	if s.leads || s.stands || s.owner {
		return syncd.Active
	}
	return syncd.Standby
}

// mayOwn reports whether this host may own the VIPs while its lease runs.
func (s stance) mayOwn() bool { return s.leads && (s.daemons || s.overdue) }

// awaitBackup gives the backup daemon of a former master time to start, which comes after
// the VIPs have gone: a kernel hears of connections also while no agent runs.
func (a *Agent) awaitBackup() {
	a.wake() // nobody else may tell of the end of a role that no other node takes
	patience := time.NewTimer(2 * syncd.YieldTime)
	defer patience.Stop()
	for {
		rounds := a.loop.Changed()
		if daemons := a.loop.Status().Daemons; len(daemons) != 1 || daemons[0].State != ipvs.Master {
			return
		}
		select {
		case <-rounds:
		case <-patience.C:
			return
		}
	}
}

// A latch says whether something is so, and can be waited for.
type latch struct {
	mu      sync.Mutex
	so      bool
	changed chan struct{} // closed by the next change; nil: nobody waits
}

func (l *latch) set(so bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.so != so && l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	l.so = so
}

// get returns what is so, and a channel that is closed when that changes.
func (l *latch) get() (so bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.so, l.changed
}
