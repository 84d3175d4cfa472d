package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ipvs-ha/ipvs-ha/api"
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

// Transfer implements api.Agent.
func (a *Agent) Transfer(ctx context.Context, node string) error {
	return problem(a.node.Transfer(ctx, node))
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
