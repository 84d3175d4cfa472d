package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// newcomers are clients that connect, get one echo and go, each a moment after the
// other whether that one was served or not.
type newcomers struct {
	stop chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex
	served map[netip.AddrPort][]time.Time // when those came that were served
	all    map[netip.AddrPort][]time.Time // and all
}

func (l *lab) newcomers(ns string, every time.Duration, to ...netip.AddrPort) *newcomers {
	n := &newcomers{stop: make(chan struct{}), served: map[netip.AddrPort][]time.Time{}, all: map[netip.AddrPort][]time.Time{}}
	n.done.Go(func() {
		err := inNamespace(ns, func() error {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-n.stop:
					return nil
				case <-tick.C:
					n.come(to[i%len(to)])
				}
			}
		})
		if err != nil {
			l.t.Errorf("newcomers in %s: %v", ns, err)
		}
	})
	l.t.Cleanup(n.close)
	return n
}

func (n *newcomers) close() {
	select {
	case <-n.stop:
		return
	default:
	}
	close(n.stop)
	n.done.Wait()
}

// come connects from the network namespace of this thread.
func (n *newcomers) come(to netip.AddrPort) {
	came := time.Now()
	note := func(list map[netip.AddrPort][]time.Time) {
		n.mu.Lock()
		defer n.mu.Unlock()
		list[to] = append(list[to], came)
	}
	note(n.all)
	conn, err := dial(to)
	if err != nil {
		return
	}
	n.done.Go(func() {
		defer conn.Close()
		if ping(conn, 0, attemptTime) == nil {
			note(n.served)
		}
	})
}

// gap returns the longest time between from and to in which nobody came who was
// served, of the service where it is longest, and the longest of those in which somebody
// came in vain: in the others the client was late itself.
func (n *newcomers) gap(from, to time.Time) (longest, inVain time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for service, served := range n.served {
		slices.SortFunc(served, time.Time.Compare)
		for i, came := range served {
			if i == 0 || !came.After(from) || !came.Before(to) {
				continue
			}
			gap := came.Sub(served[i-1])
			longest = max(longest, gap)
			if slices.ContainsFunc(n.all[service], func(t time.Time) bool { return t.After(served[i-1]) && t.Before(came) }) {
				inVain = max(inVain, gap)
			}
		}
	}
	return longest, inVain
}

// awaitServed waits until of each service the newcomers of the last moments were
// served, and returns when that was so.
func (n *newcomers) awaitServed(l *lab, since time.Time) time.Time {
	l.t.Helper()
	const enough = 5
	l.await("newcomers served", func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for to, served := range n.served {
			last := 0
			for _, came := range served {
				if came.After(since) {
					last++
				}
			}
			if last < enough {
				return fmt.Errorf("%d of %s", last, to)
			}
		}
		return nil
	})
	return time.Now()
}
