package agent

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/fsm"
)

// drainPoll is the time between two looks at a director that is to hand over.
const drainPoll = 50 * time.Millisecond

// Configure implements api.Agent: it commits what an operator sets for a director,
// and waits until one that is drained is not the active one.
func (a *Agent) Configure(ctx context.Context, node string, s api.MemberSettings) (api.MemberConfigured, error) {
	m, err := a.director(node)
	if err != nil {
		return api.MemberConfigured{}, err
	}
	_, _, err = a.propose(ctx, fsm.Command{
		V: fsm.Version, ID: api.NewID(), By: s.By,
		Directors: []fsm.DirectorSetting{{Node: m.Name, Drained: s.Drained, Preference: s.Preference}},
	})
	if err != nil {
		return api.MemberConfigured{}, err
	}
	if s.Drained == nil || !*s.Drained {
		return api.MemberConfigured{}, nil
	}
	return api.MemberConfigured{StillActive: a.awaitDrained(ctx, m)}, nil
}

// director finds a director among the members.
func (a *Agent) director(node string) (cluster.Member, error) {
	for _, m := range a.node.State().Members {
		if m.Waiting != "" || m.Name != node && m.ID != node {
			continue
		}
		if m.Witness {
			return m, api.NewProblem(api.Refused, fmt.Sprintf("%s is a witness, which is never the active director", m.Name))
		}
		return m, nil
	}
	return cluster.Member{}, api.NewProblem(api.NotFound, fmt.Sprintf("no member is called %q; see: ipvs-ha members", node))
}

// awaitDrained waits until another member leads and m is not active. It returns why
// that did not come.
func (a *Agent) awaitDrained(ctx context.Context, m cluster.Member) (reason string) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(answerMargin, time.Until(deadline)/4)))
		defer cancel()
	}
	for {
		asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
		state := a.node.State()
		active := state.Leader == m.ID || state.Leader == "" || a.memberStatus(asked, m).State == api.StateActive
		cancel()
		if !active {
			return ""
		}
		select {
		case <-ctx.Done():
			return a.nobodyElse(m)
		case <-time.After(drainPoll):
		}
	}
}

// nobodyElse says why no other director has taken over from m.
func (a *Agent) nobodyElse(m cluster.Member) string {
	ctx, cancel := context.WithTimeout(context.Background(), answerMargin/2)
	defer cancel()
	var others []string
	for _, o := range a.node.State().Members {
		if o.ID == m.ID || o.Witness || o.Waiting != "" {
			continue
		}
		reason := "it has not taken over yet"
		if s := a.memberStatus(ctx, o); !s.Eligible {
			reason = strings.Join(s.Obstacles, "; ")
		}
		others = append(others, o.Name+": "+reason)
	}
	return cmp.Or(strings.Join(others, "\n"), "there is no other director")
}
