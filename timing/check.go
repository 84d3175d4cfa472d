package timing

import (
	"errors"
	"fmt"
	"time"
)

// An Error is a rule that a profile breaks. Key is the value to blame, as the
// configuration names it.
type Error struct {
	Key    string
	Reason string // begins with the value
}

func (e *Error) Error() string { return "timing " + e.Key + ": " + e.Reason }

// Check returns one *Error for each rule that p breaks, joined, or nil.
func (p Profile) Check() error {
	var errs []error
	bad := func(key string, value time.Duration, format string, args ...any) {
		errs = append(errs, &Error{key, fmt.Sprintf("%s: ", value) + fmt.Sprintf(format, args...)})
	}
	if p.Election < p.Heartbeat {
		bad("election", p.Election, "must be at least heartbeat, %s: raft asks so", p.Heartbeat)
	}
	if p.LeaderLease > p.Heartbeat {
		bad("leader_lease", p.LeaderLease, "must be at most heartbeat, %s, or a leader that is cut off still leads when its successor does", p.Heartbeat)
	}
	if least := 2 * p.Heartbeat / 5; p.LeaderLease < least {
		bad("leader_lease", p.LeaderLease, "must be at least 2/5 of heartbeat, %s, that is %s, or one late heartbeat deposes a leader", p.Heartbeat, least)
	}
	if p.Commit < ms || p.Commit > p.Heartbeat {
		bad("commit", p.Commit, "must be from 1ms to heartbeat, %s", p.Heartbeat)
	}
	if p.Lease == 0 {
		return errors.Join(errs...)
	}
	if p.Lease < MinLease || p.Lease > MaxLease {
		bad("lease", p.Lease, "must be from %s to %s; %s of it are taken off for the lateness of the fence", MinLease, MaxLease, FenceLateness)
	}
	if least := 23 * p.Lease / 10; p.Heartbeat < least {
		bad("heartbeat", p.Heartbeat, "must be at least 2.3 times lease, %s, that is %s, or raft stands for election before a promise ends", p.Lease, least)
	}
	if most := 3 * p.Lease / 2; p.LeaderLease > most {
		bad("leader_lease", p.LeaderLease, "must be at most 1.5 times lease, %s, that is %s, or a leader that hears nobody does not step down soon after its lease", p.Lease, most)
	}
	if p.Transport <= p.Lease {
		bad("transport", p.Transport, "must be above lease, %s, or a vote request does not outlive the promise that holds it back", p.Lease)
	}
	if p.Stagger <= 0 || p.Stagger > p.Lease {
		bad("stagger", p.Stagger, "must be above 0 and at most lease, %s", p.Lease)
	}
	return errors.Join(errs...)
}
