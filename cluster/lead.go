package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	leadInterval = 250 * time.Millisecond // between two looks at what a leader must do
	opTimeout    = 5 * time.Second        // one change of the configuration, all steps
	stuckTimeout = 5 * time.Second        // a leadership transfer that blocks writes
)

// An op is a task for the goroutine that alone changes raft's configuration.
type op func(ctx context.Context)

// inLead runs f on the leader's goroutine. An error that matches errAgain says that
// f did not run; when ctx ends first, f may still run and the error matches
// ErrUnknown.
func inLead[T any](ctx context.Context, n *Node, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	task := func(run context.Context) {
		run, cancel := context.WithTimeout(run, n.opTime())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		var r result
		if r.err = ctx.Err(); r.err == nil {
			r.value, r.err = f(run)
		}
		done <- r
	}
	var none T
	if !n.isLeader() {
		return none, errAgain
	}
	select {
	case n.ops <- task:
	case <-ctx.Done():
		return none, fmt.Errorf("%w: the leader is busy", errAgain)
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// opTime bounds an op; a transfer may take two elections.
func (n *Node) opTime() time.Duration { return opTimeout + 2*n.cfg.Profile.Election }

// runLead does what a leader must do for the membership, whenever this node leads.
// It looks at what is, not at what has happened.
func (n *Node) runLead(ctx context.Context) error {
	tick := time.NewTicker(leadInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case task := <-n.ops:
			task(ctx)
			continue
		case <-n.pingLead:
		case <-tick.C:
		}
		if !n.isLeader() {
			n.stuckSince.Store(nil)
			continue
		}
		if since := n.stuckSince.Load(); since != nil && time.Since(*since) > stuckTimeout+2*n.cfg.Profile.Election {
			if n.refusesWrites(ctx) {
				return errors.New("a leadership transfer has ended but raft still refuses writes because of it; the process must restart")
			}
			n.stuckSince.Store(nil)
		}
		n.promote(ctx)
		n.giveAway()
	}
}

// refusesWrites asks raft whether it still takes a transfer to be under way.
func (n *Node) refusesWrites(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := await(ctx, func() (struct{}, error) { return struct{}{}, n.raft.Load().Barrier(enqueueTimeout).Error() })
	return errors.Is(err, raft.ErrLeadershipTransferInProgress)
}

// promote makes one non-voter that has caught up a voter.
func (n *Node) promote(ctx context.Context) {
	for _, s := range n.servers() {
		if s.Suffrage != raft.Nonvoter {
			continue
		}
		e := n.member(s)
		hctx, cancel := context.WithTimeout(ctx, askTimeout)
		h, err := n.askHello(hctx, e.ID, e.Address)
		cancel()
		if err != nil || !n.caughtUp(h.LastIndex) {
			continue
		}
		n.endHold(ctx)
		cctx, cancel := context.WithTimeout(ctx, opTimeout)
		err = n.change(cctx, func(r *raft.Raft) raft.IndexFuture {
			return r.AddVoter(s.ID, s.Address, 0, opTimeout)
		})
		n.resumeHold(err)
		cancel()
		if err != nil {
			n.log.Warn("a node that has caught up is not a voter yet", "node", e.Name, "error", err)
		} else {
			n.log.Info("node votes from now on", "node", e.Name, "id", e.ID)
		}
		return
	}
}

// giveAway transfers leadership to a fitter director. A leader that cannot is one
// all the same: it serves, and tries again later and less and less often.
func (n *Node) giveAway() {
	own := n.fitness()
	if own.Class == 0 {
		n.attempts = 0
		return
	}
	best, ok := n.fitter(own)
	if !ok || time.Now().Before(n.keepUntil) {
		return
	}
	n.holdBack(n.cfg.Now() + n.cfg.Profile.Lease)
	defer n.holdBack(0) // one attempt; then this node serves
	n.log.Info("another director is fitter to lead", "node", best.Name, "reason", own.why())
	if err := n.transferTo(best, n.cfg.Node+": "+own.why()); err != nil {
		n.log.Warn("leadership stays with a director that is less fit", "fitter", best.Name, "reason", own.why(), "error", err)
		n.keepUntil = time.Now().Add(stuckTimeout << min(n.attempts, 4)) // raft still works on it
		n.attempts++
		return
	}
	n.attempts = 0
}

// holdBack sets until when this node, just elected, leaves the lease alone.
func (n *Node) holdBack(until time.Duration) {
	n.lease.mu.Lock()
	defer n.lease.mu.Unlock()
	n.lease.hold = until
}

// fitter returns the director that is to lead rather than this node, which is as fit
// as own: one in a better class that answers and has caught up. Preference moves
// nothing, it only chooses among those.
func (n *Node) fitter(own Fitness) (best entry, ok bool) {
	var found Fitness
	others, _ := n.otherVoters()
	for _, s := range others {
		said, fresh := n.report(string(s.ID))
		if !fresh || said.Class >= own.Class || !n.caughtUp(said.LastIndex) {
			continue
		}
		if e := n.member(s); !ok || cmp.Or(said.compare(found), cmp.Compare(e.ID, best.ID)) < 0 {
			best, found, ok = e, said.Fitness, true
		}
	}
	return best, ok
}

// bestVoter returns the voter, other than this node, that is the best next leader:
// one that answers and has caught up, the fittest, with the longest log. A witness
// counts only when told so and when there is no director. Raft would wait for one that
// has not caught up, refuse writes meanwhile, and give up.
func (n *Node) bestVoter(ctx context.Context, witness bool) (best hello, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		answers []hello
	)
	others, _ := n.otherVoters()
	for _, s := range others {
		wg.Go(func() {
			h, err := n.askHello(ctx, string(s.ID), n.member(s).Address)
			if err != nil || h.Witness && !witness || !n.caughtUp(h.LastIndex) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, h)
		})
	}
	wg.Wait()
	if len(answers) == 0 {
		return hello{}, false
	}
	return slices.MinFunc(answers, func(a, b hello) int {
		return cmp.Or(a.Fitness.compare(b.Fitness), cmp.Compare(b.LastIndex, a.LastIndex), cmp.Compare(a.ID, b.ID))
	}), true
}

// caughtUp reports whether a node whose log ends at lastIndex lacks little of this
// leader's.
func (n *Node) caughtUp(lastIndex uint64) bool {
	return lastIndex+caughtUpGap >= n.raft.Load().LastIndex()
}

// transferTo hands leadership to a voter; why is in words. It ends with this node, and
// within passTime; the transfer may still happen then.
func (n *Node) transferTo(e entry, why string) error {
	// Whoever asked may go away: once begun, it comes to an end.
	ctx, cancel := context.WithTimeout(n.work, n.passTime())
	defer cancel()
	r := n.raft.Load()
	s, ok := n.server(e.ID)
	if !ok {
		return fmt.Errorf("%w: %s", ErrNotFound, e.Name)
	}
	n.awaitLog(ctx, e)
	p := n.beginPass(ctx, e, why)
	defer n.endPass(p)
	_, err := await(ctx, func() (struct{}, error) {
		return struct{}{}, r.LeadershipTransferToServer(s.ID, s.Address).Error()
	})
	leads := n.isLeader()
	if err != nil && leads && !errors.Is(err, ErrUnknown) {
		return fmt.Errorf("%w: leadership could not be given to %s: %v", ErrRefused, e.Name, err)
	}
	if !leads {
		n.awaitPass(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("%w: transfer leadership to %s: %w", ErrUnknown, e.Name, err)
	}
	n.log.Info("leadership given away", "to", e.Name)
	return nil
}

// passTime bounds a transfer: for the log, for the heir to be known, for raft, which may
// take two elections, and for the lease.
func (n *Node) passTime() time.Duration {
	return 2*askTimeout + 2*n.cfg.Profile.Election + n.cfg.Profile.Lease
}

// awaitLog returns when the member e has what is in this leader's log now. Raft
// would wait for that too, but refuses writes meanwhile. One that takes long, or does
// not answer, is left to raft.
func (n *Node) awaitLog(ctx context.Context, e entry) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for last := n.raft.Load().LastIndex(); ; {
		if h, err := n.askHello(ctx, e.ID, e.Address); err != nil || h.LastIndex >= last {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollInterval):
		}
	}
}

// change makes one change of the configuration. Raft does not tell the index of the
// current one, so the change is not tied to it; only this goroutine makes changes,
// one at a time, and raft refuses what a new leader should not have been asked.
func (n *Node) change(ctx context.Context, f func(*raft.Raft) raft.IndexFuture) error {
	if err := n.outliveFormer(ctx); err != nil {
		return err
	}
	_, err := await(ctx, func() (struct{}, error) { return struct{}{}, f(n.raft.Load()).Error() })
	return classify(err)
}

func (n *Node) removeServer(ctx context.Context, id raft.ServerID) error {
	if err := n.checkQuorum(ctx, id); err != nil {
		return err
	}
	n.removed = append(n.removed, string(id))
	if len(n.removed) > maxRemoved {
		n.removed = slices.Delete(n.removed, 0, 1)
	}
	return n.change(ctx, func(r *raft.Raft) raft.IndexFuture {
		return r.RemoveServer(id, 0, opTimeout)
	})
}

// checkQuorum refuses to remove a voter when those of the others that answer are no
// majority of what would be left: raft counts by the new configuration at once, and
// the removal itself could then never be committed.
func (n *Node) checkQuorum(ctx context.Context, without raft.ServerID) error {
	if s, ok := n.server(string(without)); !ok || s.Suffrage != raft.Voter {
		return nil
	}
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		all  int
		down []string
	)
	for _, s := range n.servers() {
		if s.ID == without || s.Suffrage != raft.Voter {
			continue
		}
		all++
		wg.Go(func() {
			if e := n.member(s); !n.answers(ctx, e) {
				mu.Lock()
				defer mu.Unlock()
				down = append(down, e.Name)
			}
		})
	}
	wg.Wait()
	if all-len(down) <= all/2 {
		slices.Sort(down)
		return fmt.Errorf("%w: without it there would be %d voters and %s would not answer, so nothing could be decided any more; start %s first",
			ErrRefused, all, strings.Join(down, ", "), strings.Join(down, ", "))
	}
	return nil
}

// await runs f, which may ignore ctx, and returns its result or, when ctx ends
// first, an error that matches ErrUnknown. f ends with raft's leadership at the
// latest.
func await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// classify gives an error of raft's one of our identities: errAgain when nothing
// entered the log, else ErrUnknown.
func classify(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrUnknown):
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}
