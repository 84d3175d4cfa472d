package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
)

func (s *Server) getMembers(w http.ResponseWriter, r *http.Request) error {
	members, err := s.agent.Members(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, orEmpty(members))
}

// Members returns the members of the cluster.
func (c *Client) Members(ctx context.Context) (members []Member, err error) {
	_, err = c.do(ctx, http.MethodGet, "/v1/members", nil, nil, &members)
	return members, err
}

func (s *Server) deleteMember(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.agent.RemoveMember(r.Context(), r.PathValue("node")))
}

// RemoveMember removes the member with that name or id for good.
func (c *Client) RemoveMember(ctx context.Context, node string) error {
	return c.act(ctx, http.MethodDelete, "/v1/members/"+url.PathEscape(node))
}

func (s *Server) replaceMember(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.agent.ReplaceMember(r.Context(), r.PathValue("node")))
}

// ReplaceMember lets a waiting node take the place of the dead one of its name.
func (c *Client) ReplaceMember(ctx context.Context, node string) error {
	return c.act(ctx, http.MethodPost, "/v1/members/"+url.PathEscape(node)+"/replace")
}

func (s *Server) patchMember(w http.ResponseWriter, r *http.Request) error {
	var settings MemberSettings
	if err := readJSON(r, &settings); err != nil {
		return err
	}
	if settings.Drained == nil && settings.Preference == nil {
		return NewProblem(Malformed, "neither drained nor preference is set")
	}
	settings.By = caller(r.Context(), settings.By)
	configured, err := s.agent.Configure(r.Context(), r.PathValue("node"), settings)
	if err != nil {
		return err
	}
	return writeJSON(w, configured)
}

// Configure sets what s says of a director. After a drain it returns when the director
// is not the active one, or when the time is up.
func (c *Client) Configure(ctx context.Context, node string, s MemberSettings) (configured MemberConfigured, err error) {
	_, err = c.do(ctx, http.MethodPatch, "/v1/members/"+url.PathEscape(node), nil, s, &configured)
	return configured, err
}

func (s *Server) postTransfer(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.agent.Transfer(r.Context(), r.URL.Query().Get("to")))
}

// Transfer makes node the leader, or the best director when node is empty.
func (c *Client) Transfer(ctx context.Context, node string) error {
	return c.act(ctx, http.MethodPost, "/v1/transfer?to="+url.QueryEscape(node))
}

func (s *Server) postReconcile(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.agent.Reconcile(r.Context()))
}

// Reconcile has every reachable director compare and repair its whole kernel.
func (c *Client) Reconcile(ctx context.Context) error {
	return c.act(ctx, http.MethodPost, "/v1/reconcile")
}

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) error {
	status, err := s.agent.Status(r.Context())
	if err != nil {
		return err
	}
	status.Warnings, status.Nodes = orEmpty(status.Warnings), slices.Clone(orEmpty(status.Nodes))
	for i := range status.Nodes {
		n := &status.Nodes[i]
		n.VIPs, n.Obstacles = orEmpty(n.VIPs), orEmpty(n.Obstacles)
		n.SyncDaemons, n.ForeignServices, n.Errors = orEmpty(n.SyncDaemons), orEmpty(n.ForeignServices), orEmpty(n.Errors)
	}
	return writeJSON(w, status)
}

// Status returns what every member says of itself.
func (c *Client) Status(ctx context.Context) (status Status, err error) {
	_, err = c.do(ctx, http.MethodGet, "/v1/status", nil, nil, &status)
	return status, err
}

// act asks for something that is not answered with a value.
func (c *Client) act(ctx context.Context, method, path string) error {
	_, err := c.do(ctx, method, path, nil, nil, nil)
	return err
}

// done answers an action: nothing, or its error.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
