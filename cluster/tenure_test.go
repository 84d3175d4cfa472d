package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// tenureLog is what OnTenure has told, by node.
type tenureLog struct {
	mu   sync.Mutex
	told map[string][]Tenure
}

func (l *tenureLog) on(node string) func(Tenure) {
	return func(t Tenure) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.told[node] = append(l.told[node], t)
	}
}

// await waits until node has told a tenure that is so, and returns it.
func (l *tenureLog) await(t *testing.T, node string, is func(Tenure) bool) Tenure {
	t.Helper()
	var found Tenure
	eventually(t, "a tenure of "+node, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.IndexFunc(l.told[node], is)
		if i >= 0 {
			found = l.told[node][i]
		}
		return i >= 0
	})
	return found
}

// checkOrder fails unless the steps of a tenure's beginning follow one another.
func checkOrder(t *testing.T, tenure Tenure) {
	t.Helper()
	steps := []time.Duration{tenure.Freed, tenure.Stood, tenure.Elected, tenure.Leased}
	if tenure.Rise == Handover { // the former leader serves until the next one leads
		steps = []time.Duration{tenure.Stood, tenure.Elected, tenure.Freed, tenure.Leased}
	}
	if tenure.Freed == 0 || !slices.IsSorted(steps) {
		t.Errorf("the steps %v are not in order", steps)
	}
}

func TestTenuresSayHow(t *testing.T) {
	t.Parallel()
	l := &tenureLog{told: map[string][]Tenure{}}
	_, w, nodes := leased(t, func(c *Config) { c.OnTenure = l.on(c.Node) })
	eventually(t, "names", func() bool {
		for _, r := range nodes {
			for _, m := range r.State().Members {
				if e := r.book.get(m.ID); e.Name == "" && !m.Local {
					return false
				}
			}
		}
		return true
	})
	first := nodes[0].cfg.Node
	began := l.await(t, first, func(x Tenure) bool { return x.Ended == 0 })
	if began.Rise != Timers || began.Term == 0 || began.Elected > began.Leased {
		t.Errorf("the first tenure: %+v", began)
	}

	nodes[0].cut()
	awaitHolder(t, w, first, nodes[1:])
	second, _ := w.held()
	got := l.await(t, second, func(x Tenure) bool { return x.Ended == 0 })
	if got.Rise != Succession || got.Former != first || got.Term <= began.Term {
		t.Errorf("after %s was cut off: %+v", first, got)
	}
	checkOrder(t, got)
	lost := l.await(t, first, func(x Tenure) bool { return x.Ended != 0 })
	if lost.Fall != Unheard || len(lost.Silent) != 2 || lost.Term != began.Term || lost.Since == 0 || lost.Since > lost.Ended {
		t.Errorf("the end of %s: %+v, want both others silent", first, lost)
	}
	nodes[0].isCut.Store(false)
	formed(t, nodes...)

	var former, heir string
	eventually(t, "a transfer", func() bool { // raft may still back off, or elect by its timers on a busy machine
		leader, others := leaderOf(nodes...)
		former, heir = leader.cfg.Node, others[0].cfg.Node
		term := leader.State().Term
		if leader.Transfer(t.Context(), heir) != nil {
			return false
		}
		got = l.await(t, heir, func(x Tenure) bool { return x.Ended == 0 && x.Term > term })
		return got.Rise != Timers
	}, nodes...)
	if got.Rise != Handover || got.Former != former || got.Reason != byOperator {
		t.Errorf("after a transfer: %+v", got)
	}
	checkOrder(t, got)
	lost = l.await(t, former, func(x Tenure) bool { return x.Ended != 0 })
	if lost.Fall != Given || lost.Heir != heir || lost.Why != byOperator {
		t.Errorf("the end of %s: %+v", former, lost)
	}
}

// TestTenuresTell walks through what cannot be brought about at will.
func TestTenuresTell(t *testing.T) {
	var told []string
	x := &tenures{tell: func(n Tenure) { told = append(told, fmt.Sprintf("%d %s %s>%s", n.Term, n.Rise, n.Former, n.Fall)) }}
	x.chosen("d1", "it stops")
	x.leads("d2") // given to another
	x.elected(3, 20, 100)
	x.leased(21)
	x.leased(22) // a renewal
	x.lost(30, Tenure{Fall: Given, Heir: "d3"})
	x.lost(31, Tenure{Fall: Deposed}) // it ended before
	x.leased(40)                      // the transfer came to nothing
	x.stands("d1", 50, 51)
	x.elected(5, 500, 100) // long after
	x.lost(501, Tenure{Fall: Unheard})
	x.leads("d1")
	x.called("d1", 600)
	x.elected(6, 601, 100)
	x.leased(602)
	x.leads("d1")
	x.chosen("d1", "it stops")
	x.called("d1", 700)
	x.elected(7, 701, 100)
	x.freed("d1", "", 702)
	x.freed("d1", "again", 703)
	x.leased(703)
	x.freed("d1", "too late", 704)
	if x.current.Reason != "it stops" || x.current.Stood != 700 || x.current.Freed != 702 {
		t.Errorf("a handover: %+v", x.current)
	}
	want := []string{
		"3 timers d2>", "3 timers d2>given", "3 resumption >", "3 resumption >deposed",
		"6 handover d1>", "6 handover d1>deposed", "7 handover d1>",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q\nwant %q", told, want)
	}
}

// TestReleaseSaysWhy: the word that a lease was given up may come before the answer to the
// request for it, to an heir that was told no reason before.
func TestReleaseSaysWhy(t *testing.T) {
	t.Parallel()
	_, _, nodes := leased(t, nil)
	former, heir := nodes[0], nodes[1]
	eventually(t, "name", func() bool { return heir.nameOf(former.id) == former.cfg.Node })
	x := &heir.tenures
	x.called(former.cfg.Node, heir.cfg.Now())
	x.elected(1, heir.cfg.Now(), time.Hour) // of an old term: nothing else comes of it
	body, err := json.Marshal(leaseRelease{Sent: former.cfg.Now(), Why: "d1 stops"})
	if err == nil {
		err = heir.answerRelease(former.id, body)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil || x.current.Reason != "d1 stops" || x.current.Freed == 0 {
		t.Errorf("%+v, error %v", x.current, err)
	}
}
