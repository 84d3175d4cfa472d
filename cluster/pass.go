package cluster

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A planned move of leadership loses no time over the election. The leader names its
// heir in its lease requests, and the voters may elect that one at once; the lease
// stays where it is. When the heir leads and is prepared, it asks for the lease. That
// is the former leader's sign to take back what the lease allowed, and to give it up.

// A pass is one attempt to give leadership away.
type pass struct {
	heir, name string // id and name of the next leader
	why        string // in words, for the records of both
	done       chan struct{}

	told map[string]bool // voters that know; lease.mu guards it
}

// beginPass names the heir to the voters. It returns when those that answer know, or
// after askTimeout.
func (n *Node) beginPass(ctx context.Context, e entry, why string) *pass {
	p := &pass{heir: e.ID, name: e.Name, why: why, done: make(chan struct{}), told: map[string]bool{}}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for named := false; n.cfg.Profile.Lease != 0 && !n.knowHeir(p); {
		term, leads := n.leading()
		if !leads {
			return p
		}
		n.lease.mu.Lock()
		if !named && n.lease.term == term { // else the first round of this term is still to come
			n.lease.pass, named = p, true
			ping(n.pingLease)
		}
		n.lease.mu.Unlock()
		select {
		case <-ctx.Done():
			return p
		case <-time.After(passInterval):
		}
	}
	return p
}

const (
	passInterval = 5 * time.Millisecond   // between two looks at a transfer under way, while the leader serves
	passLinger   = 100 * time.Millisecond // for the voters to hear that the lease was given up
)

// knowHeir reports whether the heir of p and every voter that still answers know of it.
func (n *Node) knowHeir(p *pass) bool {
	others, _ := n.otherVoters()
	l := &n.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	since := n.cfg.Now() - 2*n.cfg.Profile.Lease
	return p.told[n.id] && p.told[p.heir] && !slices.ContainsFunc(others, func(s raft.Server) bool {
		return !p.told[string(s.ID)] && l.granted[string(s.ID)] >= since
	})
}

// endPass is the end of the attempt p, whatever it came to.
func (n *Node) endPass(p *pass) {
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	if n.lease.pass == p {
		n.lease.pass = nil
	}
	n.guard.disown(n.id, p.heir) // the others hear with the next request, if this node leads on
	ping(n.pingLease)
}

// awaitPass returns when the heir of p, which has been elected, has the lease, or when
// it can have it without this node's help.
func (n *Node) awaitPass(ctx context.Context, p *pass) {
	timer := time.NewTimer(n.cfg.Profile.Lease)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	n.lease.mu.Lock()
	begun := n.lease.released
	n.lease.mu.Unlock()
	if !begun {
		return
	}
	select {
	case <-p.done:
	case <-ctx.Done():
	}
}

// passes reports whether this node, which leads no more, serves until its heir asks for
// the lease.
func (n *Node) passes() bool {
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	l := &n.lease
	return l.pass != nil && !l.released && !l.over && n.cfg.Now() < l.served
}

// passOn gives the lease up when from, the leader of term, is the heir. BeforeRelease
// must have taken back what the lease allowed. The voters are told meanwhile, so that
// one that does not answer holds nobody up. It reports whether that is so now, and why.
func (n *Node) passOn(from string, term uint64) (why string, passed bool) {
	l := &n.lease
	l.mu.Lock()
	p := l.pass
	if p == nil || p.heir != from || l.released || term <= l.term {
		l.mu.Unlock()
		return "", false
	}
	l.released = true
	release := leaseRelease{Term: l.term, Sent: n.cfg.Now(), Why: p.why}
	n.tenures.lost(release.Sent, Tenure{Fall: Given, Heir: p.name, Why: p.why})
	n.tellLease(0)
	l.mu.Unlock()
	body, err := json.Marshal(release)
	if err == nil {
		err = n.cfg.BeforeRelease(n.work)
	}
	if err != nil {
		n.log.Warn("the lease is not given up but runs out", "error", err)
		close(p.done)
		return "", false
	}
	n.guard.release(n.id, release.Term, release.Sent)
	n.cfg.OnChange() // it passes no more
	var told sync.WaitGroup
	others, _ := n.otherVoters()
	for _, s := range others {
		told.Go(func() { // lost: the lease waits for the promise's end
			ctx, cancel := context.WithTimeout(n.work, passLinger)
			defer cancel()
			_, _ = n.requests.do(ctx, string(s.ID), n.member(s).Address, requestHead{Method: methodRelease}, body)
		})
	}
	go func() { told.Wait(); close(p.done) }()
	return p.why, true
}

// prepare has this node, just elected in term while its predecessor still serves, get
// ready before it asks for the lease.
func (n *Node) prepare(ctx context.Context, term uint64) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Profile.Lease/3)
	defer cancel()
	n.cfg.BeforeLease(ctx)
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	if n.lease.term == term {
		n.lease.prepares = false
	}
	ping(n.pingLease)
}

// outliveFormer returns when no lease of a former leader can run any more: that one counts
// voters by the configuration that it knows. ctx ends it with an error that matches
// errAgain.
func (n *Node) outliveFormer(ctx context.Context) error {
	for n.cfg.Profile.Lease != 0 {
		term, leads := n.leading()
		if !leads {
			return errAgain
		}
		l := &n.lease
		l.mu.Lock()
		settled := l.term == term && (l.until != 0 || n.cfg.Now() >= l.since+n.identity.get().Promised)
		l.mu.Unlock()
		if settled {
			return nil
		}
		select {
		case <-ctx.Done():
			return errAgain
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// knows notes that a voter has granted a request that named heir, and reports whether
// that is all there is to say. lease.mu is held.
func (l *lease) knows(voter, heir string) bool {
	if l.pass == nil {
		return true
	}
	if heir == l.pass.heir {
		l.pass.told[voter] = true
	}
	return l.pass.told[voter]
}
