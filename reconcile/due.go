package reconcile

import (
	"time"

	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// rounds says when what is due.
type rounds struct {
	full    time.Time // to read the whole kernel; zero before the first round
	daemons time.Time // to look at the sync daemons alone; zero = with the next full round
	again   time.Time // not to read the whole kernel before for a surprise
	failing int       // full rounds in a row that left something undone
	deaf    int       // looks at the sync daemons in a row that left them not as wanted
}

// next returns the time of the next round.
func (r *rounds) next() time.Time {
	switch {
	case r.full.IsZero():
		return time.Now().Add(time.Hour) // nothing is due before the first Set
	case !r.daemons.IsZero() && r.daemons.Before(r.full):
		return r.daemons
	}
	return r.full
}

// repaired plans the next full round, after one whose look took that long. Where every
// look finds something wrong, the next ones rest, so that they do not follow one another
// all the time.
func (r *rounds) repaired(failed bool, interval, took time.Duration, spread func(time.Duration) time.Duration) {
	wait := max(interval, lookPause*took)
	interval = wait
	r.failing++
	if failed {
		wait = backoff(r.failing, interval)
	} else {
		r.failing = 0
	}
	r.full = time.Now().Add(spread(wait))
	r.again = time.Now().Add(time.Duration(min(max(r.failing-1, 0), lookRest)) * took)
}

// synced plans the next look at the sync daemons.
func (r *rounds) synced(status syncd.Status, interval time.Duration, spread func(time.Duration) time.Duration) {
	r.daemons = status.Again
	if status.Err == nil {
		r.deaf = 0
		return
	}
	r.deaf++
	retry := time.Now().Add(spread(backoff(r.deaf, interval)))
	if r.daemons.IsZero() || retry.Before(r.daemons) {
		r.daemons = retry
	}
}

// backoff returns how long to wait after n failures in a row: 100 ms, doubling, at
// most 1 min or limit.
func backoff(n int, limit time.Duration) time.Duration {
	return min(100*time.Millisecond<<min(n-1, 10), time.Minute, limit)
}
