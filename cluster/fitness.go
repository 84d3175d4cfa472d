package cluster

import (
	"cmp"
	"strings"
	"sync"
	"time"
)

// Limits of a Fitness.
const (
	MaxClass      = 127
	MaxPreference = 100
	maxReasons    = 16
	maxReason     = 256 // bytes
)

// classWitness is the class of a witness: whoever else is there is fitter.
const classWitness = MaxClass + 1

// steadyTime is for how long a node must have been fitter before the others are told
// so. What comes and goes, like a link, then moves leadership once and not each time.
const steadyTime = 3 * time.Second

// A Fitness says how well a director could be the active one.
type Fitness struct {
	Class      int      `json:"class,omitempty"`      // 0: fit; the higher the worse, at most MaxClass
	Preference int      `json:"preference,omitempty"` // 0 to MaxPreference: of equals the higher comes first
	Reasons    []string `json:"reasons,omitempty"`    // why Class is not 0, for people
}

// compare is negative when f is to be the active one rather than o.
func (f Fitness) compare(o Fitness) int {
	return cmp.Or(cmp.Compare(f.Class, o.Class), cmp.Compare(o.Preference, f.Preference))
}

// bounded returns f within its limits, whoever said it.
func (f Fitness) bounded() Fitness {
	f.Class = min(max(f.Class, 0), classWitness)
	f.Preference = min(max(f.Preference, 0), MaxPreference)
	var reasons []string
	for _, r := range f.Reasons[:min(len(f.Reasons), maxReasons)] {
		reasons = append(reasons, bounded(r))
	}
	f.Reasons = reasons
	return f
}

// bounded returns a reason within its limits, whoever said it.
func bounded(reason string) string {
	return strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
}

// why is f's reasons as one sentence.
func (f Fitness) why() string { return strings.Join(f.Reasons, "; ") }

// A gauge remembers a node's fitness, to tell the others at once when it has become
// worse, and only after a while when it has become better.
type gauge struct {
	steady time.Duration

	mu   sync.Mutex
	seen bool
	now  Fitness       // at the last look
	told Fitness       // what the others are told
	last time.Duration // when it was last no better than that
}

// look notes the fitness at a time since boot. It returns what the others are told,
// and whether the class has changed since the last look.
func (g *gauge) look(f Fitness, at time.Duration) (told Fitness, changed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	changed = g.seen && f.Class != g.now.Class
	if !g.seen || f.Class >= g.told.Class || at-g.last >= g.steady {
		g.told, g.last = f, at
	}
	g.seen, g.now = true, f
	g.told.Preference = f.Preference
	return g.told, changed
}

// fitness is how fit this node is now.
func (n *Node) fitness() Fitness {
	switch {
	case n.leaving.Load():
		return Fitness{Class: classWitness, Reasons: []string{"it stops"}}
	case n.cfg.Witness:
		return Fitness{Class: classWitness, Reasons: []string{"a witness is never the active director"}}
	case n.cfg.Fitness == nil:
		return Fitness{}
	}
	f := n.cfg.Fitness()
	f.Class = min(f.Class, MaxClass)
	return f.bounded()
}

// standing is how fit this node is as the others are told.
func (n *Node) standing() Fitness {
	told, changed := n.gauge.look(n.fitness(), n.cfg.Now())
	if changed {
		ping(n.pingLead)
	}
	return told
}

// A report is what a voter said of itself when it granted a lease request.
type report struct {
	Fitness
	LastIndex uint64        `json:"last_index"`       // of its log
	Passed    bool          `json:"passed,omitempty"` // it had the lease, and has just given it up for this one
	Why       string        `json:"why,omitempty"`    // in words
	Freed     string        `json:"freed,omitempty"`  // id of another that has told it so, for Why: its own word may come later
	at        time.Duration // when the request was sent
}

// report returns what the voter with that id said of itself last, if it still answers.
func (n *Node) report(id string) (report, bool) {
	if n.cfg.Profile.Lease == 0 {
		h, ok := n.answered()[id]
		return report{Fitness: h.Fitness, LastIndex: h.LastIndex}, ok
	}
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	r, ok := n.lease.reports[id]
	return r, ok && n.cfg.Now() <= r.at+2*n.cfg.Profile.Lease
}
