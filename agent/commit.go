package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/fsm"
)

const (
	maxRestages = 3                      // times that the parts of one write may get lost
	stageRetry  = 100 * time.Millisecond // before an entry without an answer is proposed again
)

// commit proposes c, which has been checked, and returns its log index and result.
// An error that is a *fsm.Rejection is the state machine's; others are those of
// cluster.Node.Propose.
//
// A new table may need several log entries. Only the last of them changes anything,
// and each may be proposed twice, so that a change of the leader is no reason to
// give up before ctx ends.
func (a *Agent) commit(ctx context.Context, c fsm.Command) (index uint64, result fsm.Result, err error) {
	entries, err := c.Entries()
	if err != nil {
		return 0, fsm.Result{}, err
	}
	if len(entries) == 1 {
		return a.proposeEntry(ctx, entries[0])
	}
	select {
	case a.staging <- struct{}{}:
		defer func() { <-a.staging }()
	case <-ctx.Done():
		return 0, fsm.Result{}, fmt.Errorf("wait for another large write: %w", ctx.Err())
	}
	return commitParts(ctx, entries, a.machine.State().Answered(c.ID), a.proposeEntry)
}

// commitParts proposes the entries of one command in their order. done says that the
// last of them is known to have been applied.
func commitParts(ctx context.Context, entries [][]byte, done bool, propose func(context.Context, []byte) (uint64, fsm.Result, error)) (index uint64, result fsm.Result, err error) {
	last, next := len(entries)-1, 0
	if done {
		next = last
	}
	for lost, inDoubt := 0, false; ; {
		index, result, err = propose(ctx, entries[next])
		switch {
		case errors.Is(err, fsm.ErrNotStaged) && lost < maxRestages:
			lost++
			next = min(result.Staged, last)
			continue
		case err == nil && next < last:
			next = min(max(result.Staged, next+1), last)
			continue
		case errors.Is(err, cluster.ErrUnknown), errors.Is(err, cluster.ErrNoLeader):
			inDoubt = inDoubt || next == last && errors.Is(err, cluster.ErrUnknown)
		default:
			return index, result, err
		}
		select {
		case <-time.After(stageRetry):
		case <-ctx.Done():
			if inDoubt {
				return 0, fsm.Result{}, fmt.Errorf("commit the new table: %w: %v", cluster.ErrUnknown, err)
			}
			return 0, fsm.Result{}, fmt.Errorf("part %d of %d of the new table, which is not committed: %w: %v", next+1, last, cluster.ErrNoLeader, err)
		}
	}
}

// proposeEntry proposes one log entry and returns its index and its result. A rejection
// is an error too.
func (a *Agent) proposeEntry(ctx context.Context, entry []byte) (uint64, fsm.Result, error) {
	index, response, err := a.node.Propose(ctx, entry)
	if err != nil {
		return 0, fsm.Result{}, err
	}
	result, err := fsm.DecodeResult(response)
	if err == nil && result.Rejected != nil {
		err = result.Rejected
	}
	return index, result, err
}
