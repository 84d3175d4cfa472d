package cluster

import (
	"cmp"
	"sync"
	"time"
)

// A Tenure is one time for which this node has the lease: how it began and how it
// ended. Its times are since boot; 0 = not, or not known.
type Tenure struct {
	Term    uint64
	Rise    Rise
	Former  string        // name of the leader before; "" = none is known
	Reason  string        // of a Handover: why Former gave leadership away, in its words
	Freed   time.Duration // when Former's lease ended; of a Handover: when its word arrived, after the election
	Stood   time.Duration // when this node stood for election
	Elected time.Duration
	Leased  time.Duration // when a majority had granted the lease

	Ended  time.Duration
	Fall   Fall
	Heir   string        // of Given: to whom
	Why    string        // of Given: the reason, in words
	Silent []string      // of Unheard: names of the voters that did not grant
	Since  time.Duration // of Unheard: when the last of them had granted; of Stalled: when this node last asked
}

// A Rise is how a node comes to lead.
type Rise string

// The ways to rise.
const (
	Succession Rise = "succession" // the former's lease ended, and a majority agreed that this node succeeds
	Handover   Rise = "handover"   // the former gave leadership to this node
	Timers     Rise = "timers"     // raft's own timers called the election
	Resumption Rise = "resumption" // the lease was lost or given up, and granted again in the same term
)

// A Fall is how a node's lease comes to an end.
type Fall string

// The ways to fall.
const (
	Given   Fall = "given"   // this node gave it up before its end
	Unheard Fall = "unheard" // a majority did not renew it
	Stalled Fall = "stalled" // this node did not even ask in time: it was stopped, or too busy
	Deposed Fall = "deposed" // a later term began
	Stopped Fall = "stopped" // this node ended without giving it up
)

// tenures follows this node's tenures and tells each twice: when it has the lease,
// and when it has ended.
type tenures struct {
	tell func(Tenure) // must not block

	mu      sync.Mutex
	next    Tenure // how this node comes to stand for election
	current Tenure // Term 0 = none yet
}

// leads notes that somebody else leads: what led to an election is over.
func (t *tenures) leads(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next.Former != name { // else it may lead on for a moment after it has called this node
		t.next = Tenure{Former: name}
	}
}

// stands notes that this node stands for election because the lease of former ended
// at freed.
func (t *tenures) stands(former string, freed, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = Tenure{Rise: Succession, Former: former, Freed: freed, Stood: now}
}

// chosen notes that former wants this node to lead next, and why.
func (t *tenures) chosen(former, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next.Former != former {
		t.next = Tenure{Former: former}
	}
	t.next.Reason = reason
}

// called notes that former has this node stand for election.
func (t *tenures) called(former string, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next.Former != former {
		t.next = Tenure{Former: former}
	}
	t.next.Rise, t.next.Stood = Handover, now
}

// freed notes that former, which has made this node leader, has given its lease up, and
// why, if it says so now. It may say it twice.
func (t *tenures) freed(former, reason string, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := &t.current; c.Rise == Handover && c.Former == former && c.Leased == 0 {
		c.Freed, c.Reason = cmp.Or(c.Freed, now), cmp.Or(c.Reason, reason)
	}
}

// elected notes that this node leads in term. What it stood for longer ago than
// recent did not lead to this.
func (t *tenures) elected(term uint64, now, recent time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(now, Tenure{Fall: Deposed})
	if t.next.Stood == 0 || t.next.Stood < now-recent {
		t.next = Tenure{Rise: Timers, Former: t.next.Former}
	}
	t.current, t.next = t.next, Tenure{}
	t.current.Term, t.current.Elected = term, now
}

// leased notes that this node has a lease.
func (t *tenures) leased(now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.current.Term == 0 || t.current.Ended == 0 && t.current.Leased != 0:
		return
	case t.current.Ended != 0:
		t.current = Tenure{Term: t.current.Term, Rise: Resumption, Freed: t.current.Ended}
	}
	t.current.Leased = now
	t.tell(t.current)
}

// lost notes how this node's tenure ended, if it has one.
func (t *tenures) lost(now time.Duration, how Tenure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(now, how)
}

func (t *tenures) open() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current.Leased != 0 && t.current.Ended == 0
}

func (t *tenures) end(now time.Duration, how Tenure) {
	c := &t.current
	if c.Leased == 0 || c.Ended != 0 {
		return
	}
	c.Ended, c.Fall, c.Heir, c.Why, c.Silent, c.Since = now, how.Fall, how.Heir, how.Why, how.Silent, how.Since
	t.tell(*c)
}

// noteLapse notes the end of a lease that ran out or whose holder leads no more.
// lease.mu must be held.
func (n *Node) noteLapse(now time.Duration) {
	l := &n.lease
	switch {
	case !n.tenures.open():
	case now >= l.until:
		n.tenures.lost(l.until, n.unheard())
	case n.raft.Load().CurrentTerm() > l.term:
		n.tenures.lost(now, Tenure{Fall: Deposed})
	default: // raft counts who answers too
		n.tenures.lost(now, n.unheard())
	}
}

// unheard says which voters have not granted for half a lease, or that this node has
// not even asked. lease.mu must be held.
func (n *Node) unheard() Tenure {
	l := &n.lease
	how := Tenure{Fall: Unheard}
	late := n.cfg.Now() - n.cfg.Profile.Lease/2
	if own := l.granted[n.id]; own < late {
		return Tenure{Fall: Stalled, Since: own}
	}
	others, _ := n.otherVoters()
	for _, s := range others {
		if at := l.granted[string(s.ID)]; at < late {
			how.Silent = append(how.Silent, n.member(s).Name)
			how.Since = max(how.Since, at)
		}
	}
	return how
}
