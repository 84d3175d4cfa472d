package agent

import (
	"context"
	"slices"
	"time"

	"github.com/ipvs-ha/ipvs-ha/boottime"
	"github.com/ipvs-ha/ipvs-ha/track"
)

const (
	// warmUp is how long a backup daemon hears the master before its director counts as
	// knowing the connections: the kernel tells of one again after 50 packets, five seconds
	// for one that is in use, and holds what it tells back for up to two.
	warmUp = 7 * time.Second
	// deafFor is how long a director may hear nothing and still know the connections that
	// count: those that are younger may be lost in any failover.
	deafFor = 3 * time.Second
	// listenEvery is the time between two looks at whether connections can be heard.
	listenEvery = 500 * time.Millisecond
)

const coldReason = "it has not had time to learn the connections since it started or was cut off"

// warmth is how well a kernel knows the connections of the cluster. Times are boot times.
type warmth struct {
	heard time.Duration // when it was last certain that the kernel hears of them; 0 = never
	from  time.Duration // since when it has, but for pauses of up to deafFor
	known bool          // what it had learnt before has not been overtaken
}

// look notes whether the kernel hears of connections now, or has them all because it is
// the active director's, and returns whether it knows them.
func (w *warmth) look(now time.Duration, hears, active bool) bool {
	deaf := w.heard == 0 || now-w.heard > deafFor
	if deaf {
		w.known, w.from = false, now
	}
	if hears || active {
		w.heard = now
		w.known = w.known || active || now-w.from >= warmUp
	}
	return w.known
}

// learn looks all the time whether this host's kernel hears of the connections.
func (a *Agent) learn(ctx context.Context) error {
	var w warmth
	tick := time.NewTicker(listenEvery)
	defer tick.Stop()
	for {
		now := boottime.Now()
		a.warm.Store(w.look(now, a.hears(), time.Duration(a.lease.Load()) > now))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// hears reports whether a sync daemon runs, its interface works, and there is a leader
// that may tell of connections.
func (a *Agent) hears() bool {
	down := slices.ContainsFunc(a.tracker.Troubles(), func(t track.Trouble) bool { return t.Object == a.cfg.Sync.Interface })
	return !down && len(a.loop.Status().Daemons) > 0 && a.node.State().Leader != ""
}
