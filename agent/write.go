package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/fsm"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Write implements api.Agent: it refuses what is invalid before it reaches the
// log, commits the rest, and waits for kernels as asked.
func (a *Agent) Write(ctx context.Context, w api.Write) (api.WriteResult, error) {
	command := fsm.Command{V: fsm.Version, ID: w.ID, By: w.By, IfRevision: w.IfRevision, Changes: w.Changes, Replace: w.Replace}
	result, index, err := a.propose(ctx, command)
	if err != nil {
		return api.WriteResult{}, err
	}
	written := api.WriteResult{Revision: result.Revision, Repeated: result.Repeated}
	if w.Wait != api.WaitNone && w.Wait != api.WaitLeader {
		for _, m := range a.node.State().Members {
			if !m.Witness && m.Waiting == "" && !m.Reachable {
				written.Skipped = append(written.Skipped, m.Name)
			}
		}
	}
	written.Pending = a.awaitKernels(ctx, w.Wait, appliedRequest{
		Index: index, Revision: result.Revision, Services: touched(w.Changes),
	})
	return written, nil
}

// propose commits a command, unless it is refused, and waits until this node knows
// it. index is the newest log index that the answer speaks of.
func (a *Agent) propose(ctx context.Context, command fsm.Command) (result fsm.Result, index uint64, err error) {
	if err := a.check(ctx, command); err != nil {
		return fsm.Result{}, 0, err
	}
	index, result, err = a.commit(ctx, command)
	if err != nil {
		return fsm.Result{}, 0, problem(err)
	}
	index = max(index, result.Index)
	if err := a.machine.Wait(ctx, index); err != nil {
		a.log.Debug("a write is committed, but not yet known here", "revision", result.Revision, "error", err)
	}
	return result, index, nil
}

// touched returns the services that changes are about, none when that cannot be
// said.
func touched(changes []ipvs.Change) []ipvs.ServiceKey {
	var keys []ipvs.ServiceKey
	for _, c := range changes {
		if c.Key == (ipvs.ServiceKey{}) {
			return nil
		}
		keys = append(keys, c.Key)
	}
	slices.SortFunc(keys, ipvs.ServiceKey.Compare)
	return slices.Compact(keys)
}

// check refuses a command that the state machine would refuse. This node's state
// may be old, so a refusal counts only against a state that has caught up.
func (a *Agent) check(ctx context.Context, c fsm.Command) error {
	err := a.machine.State().Check(c)
	if err == nil {
		return nil
	}
	if behind := a.tryCatchUp(ctx); behind != nil && !errors.Is(err, ipvs.ErrInvalid) {
		return problem(behind)
	}
	return problem(a.machine.State().Check(c))
}

// appliedRequest asks a peer whether its kernel holds revision Revision, which is
// known once its state has reached Index. With Services only those count.
type appliedRequest struct {
	Index    uint64            `json:"index"`
	Revision uint64            `json:"revision"`
	Services []ipvs.ServiceKey `json:"services,omitempty"`
}

// answerMargin is kept back from the caller's deadline, so that the answer about a
// slow kernel still reaches the caller; at most a quarter of the time that is left.
const answerMargin = 200 * time.Millisecond

// awaitKernels waits until the kernels that wait names hold the revision and
// returns those that do not, with the reason.
func (a *Agent) awaitKernels(ctx context.Context, wait api.Wait, request appliedRequest) []api.PendingNode {
	if wait == api.WaitNone {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(answerMargin, time.Until(deadline)/4)))
		defer cancel()
	}
	body, err := json.Marshal(request)
	if err != nil {
		return []api.PendingNode{{Node: a.cfg.Node, Reason: err.Error()}}
	}
	var (
		mu      sync.Mutex
		pending []api.PendingNode
		wg      sync.WaitGroup
	)
	asked := 0
	for _, m := range a.node.State().Members {
		if m.Witness || m.Waiting != "" || !m.Reachable || wait == api.WaitLeader && !m.Leader {
			continue
		}
		asked++
		wg.Go(func() {
			if reason := a.awaitKernel(ctx, m, body); reason != "" {
				mu.Lock()
				defer mu.Unlock()
				pending = append(pending, api.PendingNode{Node: m.Name, Reason: reason})
			}
		})
	}
	wg.Wait()
	if asked == 0 {
		return []api.PendingNode{{Node: a.cfg.Node, Reason: "no director could be asked whether it is in its kernel"}}
	}
	slices.SortFunc(pending, func(a, b api.PendingNode) int { return strings.Compare(a.Node, b.Node) })
	return pending
}

func (a *Agent) awaitKernel(ctx context.Context, m cluster.Member, body []byte) (reason string) {
	answer, err := a.node.Call(ctx, m.ID, methodApplied, body)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return "not in its kernel within the time asked for"
	default:
		return fmt.Sprintf("did not answer: %v", err)
	}
	return string(answer)
}
