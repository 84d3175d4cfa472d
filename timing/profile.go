// Package timing has the timings of elections and leases, and the rules by which they
// fit together.
package timing

import (
	"fmt"
	"time"
)

const (
	// Requests is how many requests a leader makes in the length of a lease.
	Requests = 6
	// FenceLateness is how late the fence that a kernel enforces at the end of a lease
	// may shut.
	FenceLateness = 12 * time.Millisecond
	// Drift is the difference of the clock rates of two nodes that a lease allows for:
	// one in so many.
	Drift = 1000
)

// Limits of Profile.Lease. Below, what is taken off for the fence would be more than
// a fifth.
const (
	MinLease = 65 * time.Millisecond
	MaxLease = 10 * time.Second
)

// A Profile is a set of timings that fit together. All members of a cluster use
// the same one.
type Profile struct {
	// Lease is how long a leader certainly has the only lease after a majority has
	// granted its request; it asks Requests times as often. 0: no leases, and
	// successors wait for raft's timers.
	Lease time.Duration `json:"lease"`
	// Heartbeat is raft's HeartbeatTimeout: how long a follower waits for its
	// leader before it stands for election.
	Heartbeat time.Duration `json:"heartbeat"`
	// Election is raft's ElectionTimeout.
	Election time.Duration `json:"election"`
	// LeaderLease is how long a leader leads without a majority's answer.
	LeaderLease time.Duration `json:"leader_lease"`
	// Stagger is how long the next in rank waits for the first successor; longer
	// than an election takes.
	Stagger time.Duration `json:"stagger"`
	// Transport bounds one raft message on the wire.
	Transport time.Duration `json:"transport"`
	// Commit is raft's CommitTimeout: an idle leader tells its followers the commit index
	// after this to twice this time, again and again. They hear of a commit at once too,
	// unless that message is lost. Each such answer is also what LeaderLease counts from: twice
	// this time should be no more than the fifth of Lease.
	Commit time.Duration `json:"commit"`
}

const ms = time.Millisecond

var profiles = map[string]Profile{
	"fast": {Lease: 100 * ms, Heartbeat: 250 * ms, Election: 250 * ms, LeaderLease: 100 * ms, Stagger: 50 * ms, Transport: 250 * ms, Commit: 10 * ms},
	"lan":  {Lease: 300 * ms, Heartbeat: 700 * ms, Election: 700 * ms, LeaderLease: 300 * ms, Stagger: 50 * ms, Transport: 700 * ms, Commit: 30 * ms},
	"wan":  {Lease: 2000 * ms, Heartbeat: 5000 * ms, Election: 5000 * ms, LeaderLease: 2000 * ms, Stagger: 100 * ms, Transport: 5000 * ms, Commit: 150 * ms},
}

// ByName returns "fast" (directors on one switch with CPU and a quick disk to spare),
// "lan" (the normal case, also for "") or "wan" (stretched or overloaded hosts).
func ByName(name string) (Profile, error) {
	if name == "" {
		name = "lan"
	}
	p, ok := profiles[name]
	if !ok {
		return Profile{}, fmt.Errorf("profile %q: must be fast, lan or wan", name)
	}
	return p, nil
}

// A value is one timing of a profile and its name.
type value struct {
	key string
	of  func(*Profile) *time.Duration
}

var values = []value{
	{"lease", func(p *Profile) *time.Duration { return &p.Lease }},
	{"heartbeat", func(p *Profile) *time.Duration { return &p.Heartbeat }},
	{"election", func(p *Profile) *time.Duration { return &p.Election }},
	{"leader_lease", func(p *Profile) *time.Duration { return &p.LeaderLease }},
	{"stagger", func(p *Profile) *time.Duration { return &p.Stagger }},
	{"transport", func(p *Profile) *time.Duration { return &p.Transport }},
	{"commit", func(p *Profile) *time.Duration { return &p.Commit }},
}

// With returns p with the values of o that are not zero.
func (p Profile) With(o Profile) Profile {
	for _, v := range values {
		if d := *v.of(&o); d != 0 {
			*v.of(&p) = d
		}
	}
	return p
}

// Differs says in words what is not the same in o as in p, like "lease 100ms, not
// 300ms"; empty when all is.
func (p Profile) Differs(o Profile) string {
	var text string
	for _, v := range values {
		if here, there := *v.of(&p), *v.of(&o); here != there {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%s %s, not %s", v.key, there, here)
		}
	}
	return text
}
