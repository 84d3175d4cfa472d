package api

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

const (
	// MaxTimeout is the longest that a request may ask to wait.
	MaxTimeout = 10 * time.Minute
	// DefaultTimeout is how long a request waits when it does not say.
	DefaultTimeout = 10 * time.Second
	// Group may use the socket, when it exists on this host.
	Group = "ipvs-ha"

	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = MaxTimeout + time.Minute
	drainTimeout  = 3 * time.Second // for requests in flight when the server stops

	maxLarge = 2 // requests above ipvs.MaxRequest that are read at once: each takes some hundred MB of memory
)

//go:embed openapi.yaml
var openAPI []byte

// Server answers the API for one agent.
type Server struct {
	agent Agent
	log   *slog.Logger
	large chan struct{} // one element for each large request that is being read
}

// NewServer returns a server; log may be nil.
func NewServer(agent Agent, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{agent: agent, log: log, large: make(chan struct{}, maxLarge)}
}

// Handler returns the API's routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range s.routes() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			limit := int64(ipvs.MaxRequest)
			if pattern == putTable {
				limit = ipvs.MaxDocument
			}
			r.Body = http.MaxBytesReader(w, r.Body, limit)
			ctx, cancel, err := withTimeout(r)
			if err == nil {
				defer cancel()
				err = handle(w, r.WithContext(ctx))
			}
			if err != nil {
				s.fail(w, pattern, err)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, "/", NewProblem(NotFound, fmt.Sprintf("there is no %s %s; see /v1/openapi.yaml", r.Method, r.URL.Path)))
	})
	return mux
}

// fail answers a request with err.
func (s *Server) fail(w http.ResponseWriter, request string, err error) {
	var p *Problem
	switch {
	case errors.As(err, &p):
	case errors.Is(err, context.DeadlineExceeded):
		p = NewProblem(Timeout, err.Error())
	default:
		p = NewProblem(Internal, err.Error())
	}
	if p.Kind == Internal {
		s.log.Warn("request failed", "request", request, "error", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone, nobody to tell
}

// routes are the handlers by method and path. What they return as an error has not
// been answered yet.
func (s *Server) routes() map[string]func(http.ResponseWriter, *http.Request) error {
	return map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/table":                   s.getTable,
		putTable:                          s.putTable,
		"GET /v1/service":                 s.getService,
		"POST /v1/changes":                s.postChanges,
		"GET /v1/status":                  s.getStatus,
		"GET /v1/events":                  s.getEvents,
		"GET /v1/members":                 s.getMembers,
		"PATCH /v1/members/{node}":        s.patchMember,
		"DELETE /v1/members/{node}":       s.deleteMember,
		"POST /v1/members/{node}/replace": s.replaceMember,
		"POST /v1/transfer":               s.postTransfer,
		"POST /v1/reconcile":              s.postReconcile,
		"GET /v1/openapi.yaml":            s.getOpenAPI,
	}
}

// Run serves the API on the unix socket at path until ctx ends: owned by the
// process's user and group Group, mode 0660. It fails when another process listens
// there. Requests in flight at the end have a few seconds to finish.
func (s *Server) Run(ctx context.Context, path string) error {
	listener, err := listen(path, s.log)
	if err != nil {
		return fmt.Errorf("API socket %s: %w", path, err)
	}
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ConnContext: withPeer,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if server.Shutdown(drain) != nil {
			server.Close()
		}
	})
	err = server.Serve(listener)
	if stop() {
		server.Close()
		return fmt.Errorf("API socket %s: %w", path, err)
	}
	<-stopped
	return nil
}

// withTimeout bounds a request by its query parameter "timeout".
func withTimeout(r *http.Request) (context.Context, context.CancelFunc, error) {
	timeout := DefaultTimeout
	if text := r.URL.Query().Get("timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 || d > MaxTimeout {
			return nil, nil, NewProblem(Malformed, fmt.Sprintf("timeout %q: want a duration like 10s, at most %s", text, MaxTimeout))
		}
		timeout = d
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}

// readJSON reads a request's body strictly.
func readJSON(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one JSON value")
		}
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return NewProblem(TooLarge, fmt.Sprintf("the request is larger than %d MiB", large.Limit>>20))
	case errors.Is(err, io.EOF):
		return NewProblem(Malformed, "request body: is empty")
	case err != nil:
		return NewProblem(Malformed, "request body: "+err.Error())
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n')) // the client is gone, nobody to tell
	return nil
}

func (s *Server) getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPI)
	return nil
}

// orEmpty makes a missing list an empty one, which is kinder to the programs that
// read it than null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func boolQuery(r *http.Request, name string) (bool, error) {
	switch v := r.URL.Query().Get(name); v {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, NewProblem(Malformed, fmt.Sprintf("%s %q: want true or false", name, v))
	}
}
