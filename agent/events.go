package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
)

const (
	maxEvents     = 256         // remembered by a node, the newest
	maxCause      = 1000        // bytes
	eventsTimeout = time.Second // for a peer to tell its events
)

// The kinds of event. Others may be added; programs pass over those they do not know.
const (
	eventStarted  = "started"
	eventStopping = "stopping"
	eventActive   = "active"
	eventStandby  = "standby"
	eventLeader   = "leader" // of a witness, which is neither active nor standby
	eventFollower = "follower"
	eventHolding  = "holding" // without a quorum
	eventQuorum   = "quorum"  // there is one again, or it holds no more
	eventFence    = "fence-rebuilt"
	eventAddress  = "address-restored"
	eventForeign  = "foreign-announcement"
)

// events are the newest things that happened on this node. They are in memory only:
// each is a line of the log too, which outlives the agent.
type events struct {
	node string
	log  *slog.Logger

	mu   sync.Mutex
	list []api.Event // oldest first, at most maxEvents
}

// add remembers e and logs it. Kind and Cause must be set; Node is, and Time when it
// is zero. It may be called from any goroutine and does not wait.
func (e *events) add(event api.Event) {
	event.Node = e.node
	if event.Time.IsZero() {
		event.Time = time.Now()
	}
	event.Time = event.Time.UTC().Truncate(time.Millisecond)
	if len(event.Cause) > maxCause {
		event.Cause = strings.ToValidUTF8(event.Cause[:maxCause], "")
	}
	e.mu.Lock()
	if len(e.list) == maxEvents {
		e.list = slices.Delete(e.list, 0, 1)
	}
	e.list = append(e.list, event)
	e.mu.Unlock()
	args := []any{"event", event.Kind, "cause", event.Cause}
	if event.Term != 0 {
		args = append(args, "term", event.Term)
	}
	if len(event.Steps) > 0 {
		args = append(args, "steps", event.StepsText(), "total", time.Duration(event.TotalMS)*time.Millisecond)
	}
	e.log.Info("event", args...)
}

// newest returns at most limit events, oldest first.
func (e *events) newest(limit int) []api.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.list[max(0, len(e.list)-limit):])
}

// An eventsRequest asks a peer for its newest events.
type eventsRequest struct {
	Limit int `json:"limit"`
}

// answerEvents serves methodEvents.
func (a *Agent) answerEvents(body []byte) ([]byte, error) {
	var request eventsRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, fmt.Errorf("request %s: %w", methodEvents, err)
	}
	return json.Marshal(a.events.newest(min(max(request.Limit, 0), maxEvents)))
}

// Events implements api.Agent: what the members remember, by time.
func (a *Agent) Events(ctx context.Context, query api.EventQuery) (api.Events, error) {
	members, err := a.whoRemembers(query.Node)
	if err != nil {
		return api.Events{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, eventsTimeout)
	defer cancel()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		answer api.Events
	)
	for _, m := range members {
		wg.Go(func() {
			list, err := a.memberEvents(ctx, m, query.Limit)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				answer.Silent = append(answer.Silent, api.SilentNode{Node: m.Name, Reason: err.Error()})
			}
			answer.Events = append(answer.Events, list...)
		})
	}
	wg.Wait()
	slices.SortFunc(answer.Silent, func(x, y api.SilentNode) int { return cmp.Compare(x.Node, y.Node) })
	slices.SortStableFunc(answer.Events, func(x, y api.Event) int {
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.Node, y.Node))
	})
	answer.Events = answer.Events[max(0, len(answer.Events)-query.Limit):]
	return answer, nil
}

// whoRemembers returns the members to ask: all, or the one with that name or id.
func (a *Agent) whoRemembers(node string) ([]cluster.Member, error) {
	members := slices.DeleteFunc(a.node.State().Members, func(m cluster.Member) bool {
		return m.Waiting != "" && !m.Local || node != "" && m.Name != node && m.ID != node
	})
	local := slices.ContainsFunc(members, func(m cluster.Member) bool { return m.Local })
	if !local && (node == "" || node == a.cfg.Node || node == a.node.ID()) { // not a member yet
		members = append(members, cluster.Member{Name: a.cfg.Node, ID: a.node.ID(), Local: true})
	}
	if len(members) == 0 {
		return nil, api.NewProblem(api.NotFound, fmt.Sprintf("no such member: %q", node))
	}
	return members, nil
}

func (a *Agent) memberEvents(ctx context.Context, m cluster.Member, limit int) ([]api.Event, error) {
	if m.Local {
		return a.events.newest(limit), nil
	}
	request, err := json.Marshal(eventsRequest{Limit: limit})
	if err != nil {
		return nil, err
	}
	body, err := a.node.Call(ctx, m.ID, methodEvents, request)
	if err != nil {
		return nil, err
	}
	var list []api.Event
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("events of %s: %w", m.Name, err)
	}
	return list, nil
}
