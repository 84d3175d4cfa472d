package agent

import (
	"context"
	"time"

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
// an old snapshot, and writing that would roll the running kernel back.
func (a *Agent) follow(ctx context.Context) error {
	if a.loop == nil {
		<-ctx.Done()
		return nil
	}
	if !a.catchUp(ctx) {
		return nil
	}
	var leaderTerm uint64 // the term in which this node, as leader, has caught up
	var mappedAt uint64   // revision of the table whose VIPs the keeper has
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		state := a.node.State()
		role := syncd.Standby
		if state.Holds && a.active.Load() {
			role = syncd.Active // nobody can have committed anything since this node led
		}
		if state.IsLeader {
			// The FSM of a new leader may lag behind what its predecessor committed.
			if leaderTerm != state.Term && a.tryCatchUp(ctx) == nil {
				leaderTerm = state.Term
			}
			now := a.node.State() // leadership may have moved, and another have answered
			if now.IsLeader && leaderTerm == now.Term {
				role = syncd.Active
			} else {
				retry.Reset(catchUpRetry)
			}
		}
		a.loop.Set(a.desired(role))
		a.caughtUp.Store(true)
		a.active.Store(role == syncd.Active)
		if table := a.machine.State(); a.vips.Load() == nil || table.Revision() != mappedAt {
			mappedAt = table.Revision()
			a.vips.Store(a.mapVIPs(table.Table()))
		}
		a.pushVIPs()
		select {
		case <-ctx.Done():
			return nil
		case <-a.ping:
		case <-retry.C:
		}
	}
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
