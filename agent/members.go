package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
)

// Members implements api.Agent.
func (a *Agent) Members(context.Context) ([]api.Member, error) {
	state := a.node.State()
	members := make([]api.Member, 0, len(state.Members))
	for _, m := range state.Members {
		members = append(members, api.Member{
			ID: m.ID, Name: m.Name, Address: m.Address, Role: role(m.Witness),
			Voter: m.Voter, Leader: m.Leader, Reachable: m.Reachable, Waiting: m.Waiting,
		})
	}
	return members, nil
}

// RemoveMember implements api.Agent.
func (a *Agent) RemoveMember(ctx context.Context, node string) error {
	return problem(a.node.RemoveMember(ctx, node))
}

// ReplaceMember implements api.Agent.
func (a *Agent) ReplaceMember(ctx context.Context, node string) error {
	return problem(a.node.ReplaceMember(ctx, node))
}

// Transfer implements api.Agent. It waits for a director that has only just started.
func (a *Agent) Transfer(ctx context.Context, node string) error {
	for {
		warmsUp := a.warmsUp(ctx, node) // before, since it may end meanwhile
		err := a.node.Transfer(ctx, node)
		if !warmsUp || !errors.Is(err, cluster.ErrRefused) {
			return problem(err)
		}
		select {
		case <-ctx.Done():
			return problem(err)
		case <-time.After(drainPoll):
		}
	}
}

// warmsUp reports whether the director of that name or id, "" for any, is only cold.
func (a *Agent) warmsUp(ctx context.Context, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return slices.ContainsFunc(a.node.State().Members, func(m cluster.Member) bool {
		return (node == "" || node == m.Name || node == m.ID) && slices.Equal(a.memberStatus(ctx, m).Obstacles, []string{coldReason})
	})
}

// Reconcile implements api.Agent: every reachable director compares its whole
// kernel with the table and repairs it, before Reconcile returns.
func (a *Agent) Reconcile(ctx context.Context) error {
	var (
		mu   sync.Mutex
		errs []error
		wg   sync.WaitGroup
	)
	asked := 0
	for _, m := range a.node.State().Members {
		if m.Witness || m.Waiting != "" || !m.Reachable {
			continue
		}
		asked++
		wg.Go(func() {
			if _, err := a.node.Call(ctx, m.ID, methodReconcile, nil); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", m.Name, err))
			}
		})
	}
	wg.Wait()
	if asked == 0 {
		return api.NewProblem(api.Refused, "this node knows no director that could be asked; see: ipvs-ha status")
	}
	if err := errors.Join(errs...); err != nil {
		return api.NewProblem(api.Refused, err.Error())
	}
	return nil
}
