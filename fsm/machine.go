package fsm

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// Machine is the state machine as raft calls it. Raft is the only writer; State
// and Wait are safe for concurrent use.
type Machine struct {
	onApply func()
	state   atomic.Pointer[State]
	known   map[string]answer // state's answers by id; written by raft's FSM goroutine only

	mu       sync.Mutex
	advanced chan struct{} // closed at the next change of state; nil while nobody waits
}

var _ raft.BatchingFSM = (*Machine)(nil)

// New returns a machine in the zero state. onApply is called after each change of
// State, on raft's goroutine, and must not block; nil means nobody cares.
func New(onApply func()) *Machine {
	if onApply == nil {
		onApply = func() {}
	}
	m := &Machine{onApply: onApply, known: map[string]answer{}}
	m.state.Store(&State{})
	return m
}

// State returns the current state.
func (m *Machine) State() State { return *m.state.Load() }

// Wait returns when State().Index() has reached index, or with ctx's error. index
// must be that of a command: raft's own entries do not reach the machine.
func (m *Machine) Wait(ctx context.Context, index uint64) error {
	for {
		advanced := m.nextAdvance()
		have := m.State().Index()
		if have >= index {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for log index %d (this node has applied %d): %w", index, have, ctx.Err())
		}
	}
}

func (m *Machine) nextAdvance() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.advanced == nil {
		m.advanced = make(chan struct{})
	}
	return m.advanced
}

// publish makes s the current state and tells everybody.
func (m *Machine) publish(s State) {
	m.state.Store(&s)
	m.mu.Lock()
	if m.advanced != nil {
		close(m.advanced)
		m.advanced = nil
	}
	m.mu.Unlock()
	m.onApply()
}

// Apply applies one log entry and returns the encoded Result, a []byte.
func (m *Machine) Apply(log *raft.Log) any { return m.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch applies log entries in order and returns the encoded Result of each
// command.
func (m *Machine) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	s := m.State()
	for i, log := range logs {
		if log.Type != raft.LogCommand {
			continue
		}
		var result Result
		s, result = m.step(s, log)
		responses[i] = result.Encode()
	}
	m.publish(s)
	return responses
}

// step applies one command and keeps known equal to the state's answers. A command
// that makes a rule panic is answered with a rejection: it would otherwise kill
// every replica now and at each restart. The step depends on the state and the
// entry only, so all replicas reject it alike.
func (m *Machine) step(s State, log *raft.Log) (next State, result Result) {
	defer func() {
		if r := recover(); r != nil {
			next = s
			next.index = log.Index
			result = Result{Revision: s.revision, Index: log.Index, Rejected: reject(Invalid, fmt.Errorf("the command cannot be applied (please report this as a bug): %v", r))}
		}
	}()
	next, result = s.apply(log.Index, log.Data, m.known)
	if added := len(next.answers); added > 0 && next.answers[added-1].result.Index == log.Index {
		if len(s.answers) == maxAnswers {
			delete(m.known, s.answers[0].id)
		}
		a := next.answers[added-1]
		m.known[a.id] = a
	}
	return next, result
}

// Snapshot captures the current state; it copies a few words.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) { return snapshot{m.State()}, nil }

// Restore replaces the state by a snapshot's: all of it, or none of it and an
// error. It closes r.
func (m *Machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	s, err := readSnapshot(r)
	if err != nil {
		return fmt.Errorf("restore the snapshot: %w", err)
	}
	m.known = make(map[string]answer, len(s.answers))
	for _, a := range s.answers {
		m.known[a.id] = a
	}
	m.publish(s)
	return nil
}

type snapshot struct{ state State }

// Persist writes the snapshot; raft lets it run beside Apply.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(sink, s.state); err != nil {
		_ = sink.Cancel()
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return sink.Close()
}

// Release does nothing: the state is garbage when nobody points to it.
func (s snapshot) Release() {}
