package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Kind is what went wrong, for programs.
type Kind string

// The kinds, each with one HTTP status.
const (
	Malformed Kind = "malformed"       // 400: the request cannot be read
	NotFound  Kind = "not-found"       // 404
	Exists    Kind = "exists"          // 409
	IDReused  Kind = "id-reused"       // 409: the write id belongs to another write
	Conflict  Kind = "conflict"        // 412: the table is not at the revision asked for
	TooLarge  Kind = "too-large"       // 413
	Invalid   Kind = "invalid"         // 422: readable, and breaks a rule
	Refused   Kind = "refused"         // 422: the cluster does not do that
	Internal  Kind = "internal"        // 500
	NoLeader  Kind = "no-leader"       // 503: certainly nothing was done
	Unknown   Kind = "unknown-outcome" // 504: it may be done, now or later
	Timeout   Kind = "timeout"         // 504: nothing was asked of the cluster, or only a read
)

var httpStatus = map[Kind]int{
	Malformed: http.StatusBadRequest,
	NotFound:  http.StatusNotFound,
	Exists:    http.StatusConflict,
	IDReused:  http.StatusConflict,
	Conflict:  http.StatusPreconditionFailed,
	TooLarge:  http.StatusRequestEntityTooLarge,
	Invalid:   http.StatusUnprocessableEntity,
	Refused:   http.StatusUnprocessableEntity,
	Internal:  http.StatusInternalServerError,
	NoLeader:  http.StatusServiceUnavailable,
	Unknown:   http.StatusGatewayTimeout,
	Timeout:   http.StatusGatewayTimeout,
}

// Problem is an error as the API tells it (RFC 9457). The client returns the one
// that the server sent, so errors.As finds the same on both sides.
type Problem struct {
	Kind   Kind         `json:"type"` // a relative URI reference
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Errors []FieldError `json:"errors,omitempty"` // one for each broken rule
}

// FieldError names a field of the request and the rule that it breaks.
type FieldError struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// NewProblem returns a problem of that kind; detail is for people.
func NewProblem(kind Kind, detail string) *Problem {
	status := httpStatus[kind]
	return &Problem{Kind: kind, Title: http.StatusText(status), Status: status, Detail: detail}
}

// Error returns the detail, which names the broken rules too.
func (p *Problem) Error() string { return p.Detail }

// KindOf returns the kind of the Problem in err, Internal when there is none.
func KindOf(err error) Kind {
	var p *Problem
	if errors.As(err, &p) {
		return p.Kind
	}
	return Internal
}

// readProblem returns the error of an answer that is no success.
func readProblem(status int, body []byte) error {
	var p Problem
	if err := json.Unmarshal(body, &p); err != nil || p.Kind == "" {
		return NewProblem(Internal, fmt.Sprintf("the agent answered with status %d", status))
	}
	return &p
}
