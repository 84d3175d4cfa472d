package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// The requests that agents make of one another over the cluster port.
const (
	methodApplied   = "applied"   // appliedRequest -> "" or the reason why not
	methodStatus    = "status"    // nothing -> api.NodeStatus
	methodEvents    = "events"    // eventsRequest -> []api.Event
	methodReconcile = "reconcile" // nothing -> nothing
)

// handle answers a peer's request.
func (a *Agent) handle(ctx context.Context, _, method string, body []byte) ([]byte, error) {
	switch method {
	case methodApplied:
		var request appliedRequest
		if err := json.Unmarshal(body, &request); err != nil {
			return nil, fmt.Errorf("request %s: %w", method, err)
		}
		return a.applied(ctx, request)
	case methodStatus:
		return json.Marshal(a.nodeStatus())
	case methodEvents:
		return a.answerEvents(body)
	case methodReconcile:
		if a.loop == nil {
			return nil, errors.New("a witness has no kernel to reconcile")
		}
		return nil, a.loop.Now(ctx)
	}
	return nil, fmt.Errorf("unknown request %q; is the peer a newer version?", method)
}

// applied waits until this kernel holds what was asked for. A kernel that refuses
// an object is an answer, not an error.
func (a *Agent) applied(ctx context.Context, request appliedRequest) ([]byte, error) {
	if err := a.machine.Wait(ctx, request.Index); err != nil {
		return nil, err
	}
	if a.loop == nil {
		return nil, nil
	}
	if err := a.loop.WaitApplied(ctx, request.Revision, request.Services...); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return []byte(err.Error()), nil
	}
	return nil, nil
}
