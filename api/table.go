package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Headers of a table's answer, beside ETag, which is the revision in quotes.
const (
	headerNode = "Ipvs-Ha-Node" // who answered
	headerAge  = "Ipvs-Ha-Age"  // of a stale view: seconds since a leader was heard, or "never"
	headerID   = "Idempotency-Key"
)

func (s *Server) getTable(w http.ResponseWriter, r *http.Request) error {
	stale, err := boolQuery(r, "stale")
	if err != nil {
		return err
	}
	view, err := s.agent.Table(r.Context(), stale)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(view.Revision))
	w.Header().Set(headerNode, view.Node)
	if view.Stale {
		age := "never"
		if view.Age >= 0 {
			age = strconv.FormatFloat(view.Age.Seconds(), 'f', 3, 64)
		}
		w.Header().Set(headerAge, age)
	}
	return writeJSON(w, view.Table)
}

// Table returns the table. A stale one is this agent's own view, at once.
func (c *Client) Table(ctx context.Context, stale bool) (TableView, error) {
	path := "/v1/table"
	if stale {
		path += "?stale=true"
	}
	view := TableView{Stale: stale}
	header, err := c.do(ctx, http.MethodGet, path, nil, nil, &view.Table)
	if err != nil {
		return TableView{}, err
	}
	view.Node = header.Get(headerNode)
	if view.Revision, err = parseETag(header.Get("ETag")); err != nil {
		return TableView{}, err
	}
	if stale {
		view.Age = -1
		if seconds, err := strconv.ParseFloat(header.Get(headerAge), 64); err == nil {
			view.Age = time.Duration(seconds * float64(time.Second))
		}
	}
	return view, nil
}

// getService answers with one service, so that an edit of it need not read the table.
func (s *Server) getService(w http.ResponseWriter, r *http.Request) error {
	key, err := ipvs.ParseServiceKey(r.URL.Query().Get("key"))
	if err != nil {
		return NewProblem(Malformed, "key: "+err.Error())
	}
	view, err := s.agent.Table(r.Context(), false)
	if err != nil {
		return err
	}
	service := view.Table.Service(key)
	if service == nil {
		return NewProblem(NotFound, fmt.Sprintf("no virtual service %s", key))
	}
	w.Header().Set("ETag", etag(view.Revision))
	return writeJSON(w, service)
}

// Service returns one service and the revision of the table that it is from. The
// Problem is NotFound when there is none with that key.
func (c *Client) Service(ctx context.Context, key ipvs.ServiceKey) (service ipvs.Service, revision uint64, err error) {
	header, err := c.do(ctx, http.MethodGet, "/v1/service?key="+url.QueryEscape(key.String()), nil, nil, &service)
	if err != nil {
		return ipvs.Service{}, 0, err
	}
	revision, err = parseETag(header.Get("ETag"))
	return service, revision, err
}

const putTable = "PUT /v1/table"

// putTable replaces the whole table. The write id is in Idempotency-Key, the
// revision in If-Match.
func (s *Server) putTable(w http.ResponseWriter, r *http.Request) error {
	write := Write{By: r.Header.Get("From"), Replace: &ipvs.Document{}}
	if err := s.readTable(r, write.Replace); err != nil {
		return err
	}
	if write.Replace.Services == nil { // a mistake must not delete everything
		return NewProblem(Malformed, "services is missing; [] means none")
	}
	return s.write(w, r, write)
}

// readTable reads a document; large ones wait for one another.
func (s *Server) readTable(r *http.Request, doc *ipvs.Document) error {
	if r.ContentLength < 0 || r.ContentLength > ipvs.MaxRequest {
		select {
		case s.large <- struct{}{}:
			defer func() { <-s.large }()
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	return readJSON(r, doc)
}

func (s *Server) postChanges(w http.ResponseWriter, r *http.Request) error {
	var write Write
	if err := readJSON(r, &write); err != nil {
		return err
	}
	switch {
	case write.Replace != nil:
		return NewProblem(Malformed, "replace: use PUT /v1/table")
	case len(write.Changes) == 0:
		return NewProblem(Malformed, "changes is missing or empty")
	}
	return s.write(w, r, write)
}

// conditions reads the write id and the revision from the headers. A body that says
// something else beside them is a mistake.
func (w *Write) conditions(r *http.Request) error {
	if id := r.Header.Get(headerID); id != "" {
		if w.ID != "" && w.ID != id {
			return NewProblem(Malformed, fmt.Sprintf("the id is %q in the body and %q in %s", w.ID, id, headerID))
		}
		w.ID = id
	}
	if match := r.Header.Get("If-Match"); match != "" {
		revision, err := parseETag(match)
		if err != nil {
			return NewProblem(Malformed, "If-Match: "+err.Error())
		}
		if w.IfRevision != nil && *w.IfRevision != revision {
			return NewProblem(Malformed, fmt.Sprintf("the revision is %d in the body and %d in If-Match", *w.IfRevision, revision))
		}
		w.IfRevision = &revision
	}
	if w.ID == "" {
		w.ID = NewID()
	}
	return nil
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, write Write) error {
	if err := write.conditions(r); err != nil {
		return err
	}
	write.By = caller(r.Context(), write.By)
	write.Wait = Wait(r.URL.Query().Get("wait"))
	switch write.Wait {
	case "":
		write.Wait = WaitAll
	case WaitAll, WaitLeader, WaitNone:
	default:
		return NewProblem(Malformed, fmt.Sprintf("wait %q: want all, leader or none", write.Wait))
	}
	result, err := s.agent.Write(r.Context(), write)
	switch {
	case err != nil && KindOf(err) == Internal && r.Context().Err() != nil:
		return NewProblem(Unknown, err.Error())
	case err != nil:
		return err
	}
	result.Pending = orEmpty(result.Pending)
	w.Header().Set("ETag", etag(result.Revision))
	return writeJSON(w, result)
}

// Write commits w, with a new id when it has none. A connection that breaks before
// the answer is made again, with the same id. The Problem is Unknown when the write
// may have been committed and nobody knows.
func (c *Client) Write(ctx context.Context, w Write) (WriteResult, error) {
	if w.ID == "" {
		w.ID = NewID()
	}
	query := ""
	if w.Wait != "" {
		query = "?wait=" + url.QueryEscape(string(w.Wait))
	}
	var result WriteResult
	var err error
	if w.Replace != nil {
		header := http.Header{headerID: {w.ID}}
		if w.By != "" {
			header.Set("From", w.By)
		}
		if w.IfRevision != nil {
			header.Set("If-Match", etag(*w.IfRevision))
		}
		doc := *w.Replace
		doc.Services = orEmpty(doc.Services)
		_, err = c.do(ctx, http.MethodPut, "/v1/table"+query, header, doc, &result)
	} else {
		_, err = c.do(ctx, http.MethodPost, "/v1/changes"+query, nil, w, &result)
	}
	return result, err
}

func etag(revision uint64) string { return fmt.Sprintf("%q", strconv.FormatUint(revision, 10)) }

func parseETag(text string) (uint64, error) {
	revision, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a revision in quotes", text)
	}
	return revision, nil
}
