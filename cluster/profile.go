package cluster

import (
	"fmt"
	"time"
)

// leaseRequests is how many requests a leader makes in the length of a lease.
const leaseRequests = 6

// A Profile is a set of timings that fit together. All members of a cluster use
// the same one.
type Profile struct {
	Name string
	// Heartbeat is raft's HeartbeatTimeout: how long a follower waits for its
	// leader before it stands for election. At least 5 ms.
	Heartbeat time.Duration
	// Election is raft's ElectionTimeout, at least Heartbeat.
	Election time.Duration
	// LeaderLease is how long a leader leads without a majority's answer, at
	// most Heartbeat.
	LeaderLease time.Duration
	// Lease is how long a leader is certainly the only one after a majority has
	// granted its request; it asks leaseRequests times as often. Raft's own timers
	// must not fire before a promise ends: Heartbeat is at least 2.3 times Lease. 0:
	// no leases, and successors wait for raft's timers.
	Lease time.Duration
	// Stagger is how long the next in rank waits for the first successor; longer
	// than an election takes.
	Stagger time.Duration
	// Commit is the longest time before an idle leader tells followers the
	// commit index, that is how late a follower applies. At least 1 ms.
	Commit time.Duration
	// Transport bounds one raft message on the wire.
	Transport time.Duration
}

// ProfileByName returns "fast" (directors on one switch with CPU and a quick disk
// to spare), "lan" (the normal case, also for "") or "wan" (stretched or overloaded
// hosts).
//
// LeaderLease is well below Heartbeat so that a leader that is cut off stops
// before its successor can win; it is at least twice the slowest heartbeat period
// (Heartbeat/5), so that one late heartbeat costs nothing.
func ProfileByName(name string) (Profile, error) {
	switch name {
	case "fast":
		return Profile{
			Name: name, Heartbeat: 250 * time.Millisecond, Election: 250 * time.Millisecond,
			LeaderLease: 100 * time.Millisecond, Lease: 100 * time.Millisecond, Stagger: 50 * time.Millisecond, Commit: 10 * time.Millisecond, Transport: 250 * time.Millisecond,
		}, nil
	case "lan", "":
		return Profile{
			Name: "lan", Heartbeat: 700 * time.Millisecond, Election: 700 * time.Millisecond,
			LeaderLease: 300 * time.Millisecond, Lease: 300 * time.Millisecond, Stagger: 50 * time.Millisecond, Commit: 20 * time.Millisecond, Transport: 700 * time.Millisecond,
		}, nil
	case "wan":
		return Profile{
			Name: name, Heartbeat: 5 * time.Second, Election: 5 * time.Second,
			LeaderLease: 2 * time.Second, Lease: 2 * time.Second, Stagger: 100 * time.Millisecond, Commit: 100 * time.Millisecond, Transport: 5 * time.Second,
		}, nil
	}
	return Profile{}, fmt.Errorf("profile %q: must be fast, lan or wan", name)
}

// leaderWait is how long a request waits for a leader to appear: a few elections.
func (p Profile) leaderWait() time.Duration { return 5 * p.Election }
