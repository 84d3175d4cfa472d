package reconcile

import (
	"context"
	"time"

	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// reconcileDaemons lets the syncer work for the role of d, with the sync settings of its
// table, and counts the drift that it repaired.
func (l *Loop) reconcileDaemons(ctx context.Context, d Desired) {
	want, run := syncd.Want(d.Role, d.Table.Sync(), d.Cluster, d.Interface)
	settled := l.believed.known && l.believed.daemons.Err == nil && l.believed.daemons.Again.IsZero() &&
		want == l.believed.daemon && run == l.believed.run
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	status := l.syncer.Reconcile(ctx, want, run)
	l.believed.served, l.believed.role = true, d.Role
	l.believed.daemon, l.believed.run, l.believed.daemons = want, run, status
	l.rounds.synced(status, l.interval, l.spread)
	if status.Started+status.Stopped == 0 {
		return
	}
	if settled {
		l.drifted += max(status.Started, status.Stopped)
		l.log.Warn("somebody else changed the sync daemons; they are repaired", "daemons", status.Daemons)
	} else {
		l.log.Info("sync daemons changed", "daemons", status.Daemons)
	}
}

// newest returns the newest value and its number. There is one.
func (l *Loop) newest() (Desired, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.desired, l.asked
}

// serveRole carries out the newest role in the middle of a round, which may be long, and
// what of it was to wait: a failover does not wait until a large table is written. The sync
// settings are those of d's table, the one that is being written: the kernel may not bear
// others yet.
//
// The first backup waits all the same, since it binds the connections that it receives
// only to services that exist.
func (l *Loop) serveRole(ctx context.Context, d Desired) {
	newest, number := l.newest()
	again := l.believed.daemons.Again
	waits := again.IsZero() || time.Now().Before(again)
	if ctx.Err() != nil || l.believed.served && newest.Role == l.believed.role && waits || !l.believed.served && newest.Role == syncd.Standby {
		return
	}
	newest.Table = d.Table
	l.reconcileDaemons(ctx, newest)
	if ctx.Err() == nil {
		l.publishRole(number)
	}
}
