package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	repeatInterval = time.Minute // one line of a kind per minute; the rest at debug
	maxKinds       = 256
)

// A quiet log passes on what the libraries say. They repeat a warning with every
// attempt to reach a dead peer; here each kind of line comes once a minute.
type quiet struct {
	log  *slog.Logger
	mu   sync.Mutex
	last map[string]time.Time // by kind of line
}

func newQuiet(log *slog.Logger) *quiet {
	return &quiet{log: log, last: map[string]time.Time{}}
}

func (q *quiet) line(level slog.Level, kind, message string, args ...any) {
	if level > slog.LevelDebug && !q.first(kind) {
		level = slog.LevelDebug
	}
	q.log.Log(context.Background(), level, message, args...)
}

func (q *quiet) first(kind string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.last[kind]) < repeatInterval {
		return false
	}
	if len(q.last) >= maxKinds {
		clear(q.last)
	}
	q.last[kind] = time.Now()
	return true
}

// raftLogger returns a logger for raft. What raft calls an error is, for this
// node, a warning: it goes on.
func raftLogger(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	logger.RegisterSink(raftSink{newQuiet(log)})
	return logger
}

type raftSink struct{ *quiet }

// Accept implements hclog.SinkAdapter.
func (s raftSink) Accept(_ string, level hclog.Level, message string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Error:
		to = slog.LevelWarn
	case hclog.Warn:
		to = slog.LevelInfo
	}
	kind := message
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "peer" || args[i] == "server-id" {
			kind += fmt.Sprint(args[i+1])
		}
	}
	s.line(to, kind, "raft: "+message, args...)
}

// gossipLog is an io.Writer that gets memberlist's lines. They are hints, so none
// is more than information.
type gossipLog struct{ *quiet }

// Write implements io.Writer.
func (g gossipLog) Write(line []byte) (int, error) {
	level, text := slog.LevelDebug, bytes.TrimSpace(line)
	for _, prefix := range []string{"[ERR] ", "[WARN] ", "[INFO] ", "[DEBUG] "} {
		if rest, ok := bytes.CutPrefix(text, []byte(prefix)); ok {
			text = rest
			if prefix == "[ERR] " || prefix == "[WARN] " {
				level = slog.LevelInfo
			}
			break
		}
	}
	kind, _, _ := bytes.Cut(text, []byte(": ")) // "memberlist: What happened: to whom"
	if rest := text[len(kind):]; len(rest) > 2 {
		what, _, _ := bytes.Cut(rest[2:], []byte(":"))
		kind = what
	}
	g.line(level, string(kind), string(text))
	return len(line), nil
}
