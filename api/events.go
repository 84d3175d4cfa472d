package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Limits of EventQuery.Limit.
const (
	DefaultEvents = 100
	MaxEvents     = 2000
)

// EventQuery says which events are wanted.
type EventQuery struct {
	Node  string // name or id of a member; empty: all members
	Limit int    // the newest so many, 1 to MaxEvents; 0 = DefaultEvents
}

// Events are what the members remember, oldest first. Each node remembers some
// hundreds, until its agent ends.
type Events struct {
	Events []Event      `json:"events"`
	Silent []SilentNode `json:"silent"` // members whose events are missing here
}

// SilentNode is a member that did not tell its events.
type SilentNode struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// Event is one thing that happened on a node, most often a change of its role.
type Event struct {
	Time    time.Time `json:"time"` // by the node's clock, in milliseconds
	Node    string    `json:"node"`
	Kind    string    `json:"kind"`           // one word, like active or standby; more may be added
	Term    uint64    `json:"term,omitempty"` // raft's, of a change of role
	Cause   string    `json:"cause"`          // in words
	From    string    `json:"from,omitempty"` // where the steps begin
	Steps   []Step    `json:"steps,omitempty"`
	TotalMS int64     `json:"total_ms,omitempty"` // the sum of the steps
}

// Step is a part of an event.
type Step struct {
	Name string `json:"name"`
	MS   int64  `json:"ms"` // since the step before
}

// StepsText returns the steps as one line, empty when there are none.
func (e Event) StepsText() string {
	if len(e.Steps) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(e.From)
	for _, s := range e.Steps {
		fmt.Fprintf(&b, " -> %s %d ms", s.Name, s.MS)
	}
	return b.String()
}

func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) error {
	query := EventQuery{Node: r.URL.Query().Get("node"), Limit: DefaultEvents}
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxEvents {
			return NewProblem(Malformed, fmt.Sprintf("limit %q: want 1 to %d", text, MaxEvents))
		}
		query.Limit = n
	}
	events, err := s.agent.Events(r.Context(), query)
	if err != nil {
		return err
	}
	events.Events, events.Silent = orEmpty(events.Events), orEmpty(events.Silent)
	return writeJSON(w, events)
}

// Events returns what happened, as the members remember it.
func (c *Client) Events(ctx context.Context, query EventQuery) (events Events, err error) {
	parameters := url.Values{}
	if query.Node != "" {
		parameters.Set("node", query.Node)
	}
	if query.Limit != 0 {
		parameters.Set("limit", strconv.Itoa(query.Limit))
	}
	path := "/v1/events"
	if len(parameters) > 0 {
		path += "?" + parameters.Encode()
	}
	_, err = c.do(ctx, http.MethodGet, path, nil, nil, &events)
	return events, err
}
