package agent

import (
	"context"

	"github.com/ipvs-ha/ipvs-ha/api"
)

// Table implements api.Agent. The default is linearizable: everything that was
// committed before the call is in the answer. A stale read asks nobody.
func (a *Agent) Table(ctx context.Context, stale bool) (api.TableView, error) {
	if !stale {
		index, err := a.node.ReadIndex(ctx)
		if err != nil {
			return api.TableView{}, problem(err)
		}
		if err := a.machine.Wait(ctx, index); err != nil {
			return api.TableView{}, problem(err)
		}
	}
	state := a.machine.State()
	if stale && state.Index() == 0 {
		// Not an empty table: what its log holds is known to be committed only by a leader's
		// word.
		return api.TableView{}, api.NewProblem(api.NoLeader, "this node knows no table yet: it has not caught up with a leader since it started, or nothing was ever written")
	}
	view := api.TableView{Table: state.Table(), Revision: state.Revision(), Node: a.cfg.Node, Stale: stale}
	if stale {
		view.Age = a.node.State().LeaderAge
	}
	return view, nil
}
