package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Transfer hands leadership to the member with that name or id; "" chooses the
// best director. It returns once that member leads. A witness is refused while a
// director could lead. Any member may ask; errors match ErrNotFound, ErrRefused,
// ErrNoLeader or ErrUnknown.
func (n *Node) Transfer(ctx context.Context, who string) error {
	ctx, cancel := context.WithTimeout(ctx, n.leaderWait()+opTimeout)
	defer cancel()
	target, err := n.atLeader(ctx, methodTransfer, []byte(who), false)
	if err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	for n.leader().ID != string(target) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("transfer leadership: %w: %s does not lead yet", ErrUnknown, n.book.get(string(target)).Name)
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// RemoveMember removes the member with that name or id for good: its data directory
// is worth nothing afterwards. Any member may ask; errors match ErrNotFound,
// ErrRefused, ErrNoLeader or ErrUnknown.
func (n *Node) RemoveMember(ctx context.Context, who string) error {
	if _, err := n.atLeader(ctx, methodRemove, []byte(who), false); err != nil {
		return fmt.Errorf("remove member %s: %w", who, err)
	}
	return nil
}

// ReplaceMember is the operator's word that the member with that name or id is gone
// for good: the node that waits under its name becomes a member in its place. Any
// member may ask; errors match ErrNotFound, ErrRefused (also when nothing waits, or
// the old node is alive), ErrNoLeader or ErrUnknown.
func (n *Node) ReplaceMember(ctx context.Context, who string) error {
	if _, err := n.atLeader(ctx, methodReplace, []byte(who), false); err != nil {
		return fmt.Errorf("replace member %s: %w", who, err)
	}
	return nil
}

// byOperator is the reason of a transfer that somebody asked for.
const byOperator = "an operator asked for it"

// leadHere serves methodTransfer, methodRemove and methodReplace.
func (n *Node) leadHere(ctx context.Context, method, who string) ([]byte, error) {
	return inLead(ctx, n, func(ctx context.Context) ([]byte, error) {
		switch method {
		case methodTransfer:
			return n.transferHere(ctx, who)
		case methodRemove:
			return nil, n.removeHere(ctx, who)
		}
		return nil, n.replaceHere(ctx, who)
	})
}

// transferHere returns the id of the member that leads afterwards.
func (n *Node) transferHere(ctx context.Context, who string) ([]byte, error) {
	own := n.fitness()
	director, someDirector := n.bestVoter(ctx, false)
	if who == "" {
		if !someDirector {
			return nil, fmt.Errorf("%w: no other director answers", ErrRefused)
		}
		if err := mayLead(director, own); err != nil {
			return nil, err
		}
		return []byte(director.ID), n.transferTo(director.entry, byOperator)
	}
	s, e, err := n.find(who)
	switch {
	case err != nil:
		return nil, err
	case e.ID == n.id:
		return []byte(n.id), nil
	case s.Suffrage != raft.Voter:
		return nil, fmt.Errorf("%w: %s does not vote yet", ErrRefused, e.Name)
	case e.Witness && (someDirector || !n.cfg.Witness):
		return nil, fmt.Errorf("%w: %s is a witness, and a director is up", ErrRefused, e.Name)
	}
	hctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	h, err := n.askHello(hctx, e.ID, e.Address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %s does not answer", ErrRefused, e.Name)
	case !n.caughtUp(h.LastIndex):
		return nil, fmt.Errorf("%w: %s has not caught up yet", ErrRefused, e.Name)
	}
	if err := mayLead(h, own); err != nil {
		return nil, err
	}
	return []byte(e.ID), n.transferTo(e, byOperator)
}

// mayLead refuses a director that is less fit than the leader, which would get
// leadership back at once.
func mayLead(h hello, leader Fitness) error {
	if h.Fitness.Class > leader.Class {
		return fmt.Errorf("%w: %s is less fit to be the active director: %s", ErrRefused, h.Name, h.Fitness.why())
	}
	return nil
}

func (n *Node) removeHere(ctx context.Context, who string) error {
	s, e, err := n.find(who)
	if err != nil {
		return err
	}
	if e.ID == n.id {
		best, ok := n.bestVoter(ctx, true)
		if !ok {
			return fmt.Errorf("%w: %s leads, and no other voter answers", ErrRefused, e.Name)
		}
		if err := n.transferTo(best.entry, e.Name+" is to be removed"); err != nil {
			return err
		}
		return fmt.Errorf("%w: leadership was given to %s first", errAgain, best.Name)
	}
	if err := n.removeServer(ctx, s.ID); err != nil {
		return err
	}
	n.log.Warn("member removed", "node", e.Name, "id", e.ID, "address", e.Address)
	// Raft no longer talks to it. If it is up it will ask, and be told.
	nctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := n.requests.do(nctx, e.ID, e.Address, requestHead{Method: methodNotice}, nil); err != nil {
		n.log.Debug("the removed member does not hear of it now", "node", e.Name, "error", err)
	}
	return nil
}

func (n *Node) replaceHere(ctx context.Context, who string) error {
	s, e, err := n.find(who)
	if err != nil {
		return err
	}
	var next *waiter
	for _, w := range n.listWaiters() {
		if w.Name == e.Name {
			next = &w
		}
	}
	switch {
	case next == nil:
		return fmt.Errorf("%w: no new node waits under the name %s; start it first, or run members remove %s", ErrRefused, e.Name, e.Name)
	case n.answers(ctx, e):
		return fmt.Errorf("%w: %s at %s is alive; stop it first", ErrRefused, e.Name, e.Address)
	}
	if err := n.removeServer(ctx, s.ID); err != nil {
		return err
	}
	n.log.Warn("member replaced", "node", e.Name, "old", e.ID, "new", next.ID, "address", next.Address)
	// Its name is free now. It asks again within a second, and is let in then.
	return nil
}

// find returns the member with that id, or the only one with that name.
func (n *Node) find(who string) (found raft.Server, entryOf entry, err error) {
	matches := 0
	for _, s := range n.servers() {
		e := n.member(s)
		if e.ID == who {
			return s, e, nil
		}
		if who != "" && e.Name == who {
			found, entryOf = s, e
			matches++
		}
	}
	switch matches {
	case 0:
		return raft.Server{}, entry{}, fmt.Errorf("%w: %q", ErrNotFound, who)
	case 1:
		return found, entryOf, nil
	}
	return raft.Server{}, entry{}, fmt.Errorf("%w: %d members are called %s; use the id", ErrRefused, matches, who)
}
