package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	clientMargin = 2 * time.Second        // a client waits so much longer than it told the agent
	attempts     = 3                      // of a request whose connection breaks
	retryPause   = 100 * time.Millisecond // before the next attempt
	maxAnswer    = 128 << 20              // bytes
)

// Client calls the API of one agent. It is safe for concurrent use and keeps no
// connection open between calls.
type Client struct {
	address string
	http    http.Client
}

var _ Agent = (*Client)(nil)

// NewClient returns a client for "unix:///path/of/the/socket". A wrong address is
// an error of its first use.
func NewClient(address string) *Client {
	socket := strings.TrimPrefix(address, "unix://")
	var dialer net.Dialer
	return &Client{address: address, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "unix", socket)
			if err != nil {
				return nil, &notReached{err}
			}
			return conn, nil
		},
	}}}
}

// notReached says that there was no connection, so that nothing was asked.
type notReached struct{ err error }

func (e *notReached) Error() string { return e.err.Error() }
func (e *notReached) Unwrap() error { return e.err }

// NewID returns a new id for a Write.
func NewID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// do sends a request and reads its answer into out, which may be nil. Reads, and
// writes, which have an id, are sent again when their connection breaks. A request
// for a change that may have arrived and got no answer is a Problem of kind Unknown.
func (c *Client) do(ctx context.Context, method, path string, header http.Header, in, out any) (http.Header, error) {
	if !strings.HasPrefix(c.address, "unix:///") {
		return nil, NewProblem(Malformed, fmt.Sprintf("API address %q: want unix:///PATH", c.address))
	}
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
	}
	timeout := DefaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(time.Until(deadline), MaxTimeout)
	}
	if timeout <= 0 {
		return nil, NewProblem(Timeout, "the time was up before the agent was asked")
	}
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	target := path + separator + "timeout=" + timeout.String()
	// The agent gets the whole time; its answer may take a little longer.
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout+clientMargin)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})()

	repeatable := method == http.MethodGet || in != nil // only writes have a body, and an id
	sent := false
	for try := 1; ; try++ {
		answer, err := c.once(wait, method, target, header, body, out)
		var p *Problem
		if err == nil || errors.As(err, &p) {
			return answer, afterSilence(p, sent && method != http.MethodGet, err)
		}
		var unreached *notReached
		sent = sent || !errors.As(err, &unreached)
		if !sent || !repeatable || try == attempts || !pause(wait, retryPause) {
			return nil, c.noAnswer(err, sent && method != http.MethodGet)
		}
	}
}

// afterSilence corrects an answer that came after an attempt without one, which may
// have arrived: that nothing was done is said of the last attempt only.
func afterSilence(p *Problem, silence bool, err error) error {
	if !silence || p == nil {
		return err
	}
	switch p.Kind {
	case NoLeader, Timeout, Internal:
		return NewProblem(Unknown, "the agent did not answer at first, and then: "+p.Detail)
	}
	return err
}

// once makes one attempt. The error is a Problem when the agent answered with one.
func (c *Client) once(ctx context.Context, method, target string, header http.Header, body []byte, out any) (http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://agent"+target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		r.Header[k] = v
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(answer) > maxAnswer:
		return nil, NewProblem(TooLarge, fmt.Sprintf("the answer is larger than %d MiB", maxAnswer>>20))
	case response.StatusCode >= 300:
		return nil, readProblem(response.StatusCode, answer)
	case out == nil:
		return response.Header, nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return nil, NewProblem(Internal, fmt.Sprintf("the agent's answer cannot be read: %v", err))
	}
	return response.Header, nil
}

// noAnswer says why there is no answer.
func (c *Client) noAnswer(err error, unknown bool) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var unreached *notReached
	switch {
	case unknown:
		return NewProblem(Unknown, fmt.Sprintf("the agent at %s was asked and did not answer: %v", c.address, err))
	case errors.As(err, &unreached) && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot reach the agent at %s: %w; you must be root or in group %s", c.address, err, Group)
	case errors.As(err, &unreached):
		return fmt.Errorf("cannot reach the agent at %s: %w; is it running?", c.address, err)
	case errors.Is(err, context.DeadlineExceeded):
		return NewProblem(Timeout, fmt.Sprintf("the agent at %s did not answer in time", c.address))
	}
	return fmt.Errorf("the agent at %s did not answer: %w", c.address, err)
}

// pause returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
