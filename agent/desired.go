package agent

import (
	"context"
	"time"

	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/reconcile"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

const (
	catchUpTimeout = 5 * time.Second        // one attempt to hear from a leader and reach its index
	catchUpRetry   = 200 * time.Millisecond // between attempts
)

// follow hands the converge loop the newest table and role, each time something
// may have changed. It is level-triggered: it reads what is, whatever happened.
//
// The loop gets nothing before this node has heard from a leader and has applied
// everything committed by then. Until that moment the node may hold the table of
// an old snapshot, and writing that would roll the running kernel back. From then on
// its table only moves forward, so that a new leader need not wait for the last writes
// of its predecessor: it lacks what any standby may lack, those of the last moments,
// and in the worst case nobody serves the VIPs until it takes the role.
func (a *Agent) follow(ctx context.Context) error {
	if a.loop == nil {
		<-ctx.Done()
		return nil
	}
	if !a.catchUp(ctx) {
		return nil
	}
	var given reconcile.Desired // to the loop
	var holds bool              // the lease without a quorum
	var number uint64           // the loop's, of the first one of this role
	var dueBy time.Time         // by when that should be done
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		rounds, owning := a.loop.Changed(), a.ownerChanged()
		state := a.node.State()
		s := stance{owner: a.owner()}
		s.leads = a.leads(state, given.Role)
		s.stands = state.Stands && a.fitness().Class == 0 && !syncd.Host{}.BackupOnly() // its backup daemon must hear the winner
		if d := a.desired(s.role()); !a.caughtUp.Load() || d.Revision != given.Revision || d.Role != given.Role {
			asked := a.loop.Set(d)
			if d.Role != given.Role {
				wait := patience(syncd.Host{}.BackupOnly())
				number, dueBy = asked, time.Now().Add(wait)
				due.Reset(wait)
			}
			if !a.caughtUp.Load() || !d.Table.SameVIPs(given.Table) {
				a.vips.Store(a.mapVIPs(d.Table))
			}
			given = d
			a.caughtUp.Store(true)
		}
		s.daemons, s.overdue = a.loop.Status().Seen >= number, !time.Now().Before(dueBy)
		a.active.Store(s.mayOwn())
		a.prepared.set(s.leads && s.daemons)
		a.noteRole(s.mayOwn(), state.Term)
		if state.Holds != holds {
			holds = state.Holds
			a.noteHold(holds)
		}
		a.pushVIPs()
		if s.leads == s.mayOwn() {
			rounds = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.ping:
		case <-rounds:
		case <-owning:
		case <-due.C:
		}
	}
}

// leads reports whether this node acts as the leader, in role so far. A leader that is
// not fit may leave the lease alone and give leadership to another at once: it changes
// nothing before it has the lease. One that leads no more goes on while it holds, when
// nobody can have committed anything since, and until its heir is ready.
func (a *Agent) leads(state cluster.State, role syncd.Role) bool {
	if state.IsLeader {
		return role == syncd.Active || !a.caughtUp.Load() || a.lease.Load() != 0 || a.fitness().Class == 0
	}
	return (state.Holds || state.Passes) && a.active.Load()
}

// desired returns what this director's kernel must hold in role.
func (a *Agent) desired(role syncd.Role) reconcile.Desired {
	state := a.machine.State()
	return reconcile.Desired{
		Table:     state.Table(),
		Revision:  state.Revision(),
		Role:      role,
		Interface: a.cfg.Sync.Interface,
		Cluster:   a.cfg.Cluster.Name,
	}
}

// catchUp blocks until this node holds everything that was committed when it heard
// from a leader, or until ctx ends, when it returns false.
func (a *Agent) catchUp(ctx context.Context) bool {
	for a.tryCatchUp(ctx) != nil {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(catchUpRetry):
		}
	}
	return true
}

func (a *Agent) tryCatchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	index, err := a.node.ReadIndex(ctx)
	if err != nil {
		return err
	}
	return a.machine.Wait(ctx, index)
}
