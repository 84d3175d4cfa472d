package fsm

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// State is what the cluster agrees on. It is immutable, safe for concurrent use
// and cheap to copy. The zero value is the state before the first command.
type State struct {
	table     ipvs.Table
	directors []Director // by name; without those at their defaults
	revision  uint64
	index     uint64
	answers   []answer // of the last maxAnswers writes, oldest first; see remember
	stages    []stage  // the one used last is the last; see makeRoom
}

// Table returns the virtual service table.
func (s State) Table() ipvs.Table { return s.table }

// Revision returns the log index of the last command that changed the table, 0
// before the first. A command that changes nothing of it keeps it.
func (s State) Revision() uint64 { return s.revision }

// Index returns the log index of the last command that was applied. Raft's own
// entries have indexes too, so a replica that lacks nothing may be below the
// cluster's commit index.
func (s State) Index() uint64 { return s.index }

// Hash returns a SHA-256 of the whole state. Replicas with the same Index have the
// same Hash. It costs about as much as a snapshot.
func (s State) Hash() [sha256.Size]byte {
	h := sha256.New()
	if err := s.encode(h); err != nil {
		panic(fmt.Sprintf("fsm: encode the state: %v", err)) // a hash takes everything
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Check reports why c would be rejected in this state, as a *Rejection, so that
// bad input never reaches the log. It is a preview: until c is committed the state
// may change. A repeated write passes, since the log answers it from the first.
func (s State) Check(c Command) error {
	if c.V == 0 {
		c.V = Version
	}
	if err := c.check(); err != nil {
		return err
	}
	if c.part != nil || c.commit != nil {
		return nil // Entries has made it of a command that was checked
	}
	if _, _, rejection := s.next(c); rejection != nil && !s.Answered(c.ID) {
		return rejection
	}
	return nil
}

// next returns the table and the settings of directors after c, whose form has been
// checked; the table is s's own when c changes nothing of it.
func (s State) next(c Command) (ipvs.Table, []Director, *Rejection) {
	if c.IfRevision != nil && *c.IfRevision != s.revision {
		return ipvs.Table{}, nil, reject(Conflict, fmt.Errorf("the table has revision %d, not %d: read it again and decide anew", s.revision, *c.IfRevision))
	}
	table, directors := s.table, s.directors
	var err error
	switch {
	case c.Replace != nil:
		if table, err = c.Replace.Table(); err == nil {
			table = s.table.Replace(table)
		}
	case len(c.Directors) > 0:
		directors, err = set(s.directors, c.Directors)
	default:
		table, err = s.table.Apply(c.Changes...)
	}
	if err != nil {
		return ipvs.Table{}, nil, rejectFor(err)
	}
	return table, directors, nil
}

// apply returns the state after the log entry data at index, and the answer. known
// finds earlier answers among s.answers.
func (s State) apply(index uint64, data []byte, known map[string]answer) (State, Result) {
	s.index = index
	s = s.expire(index)
	result := Result{Revision: s.revision, Index: index}
	c, sum, err := decode(data)
	if err != nil {
		errors.As(err, &result.Rejected)
		return s, result
	}
	if first, ok := known[c.ID]; ok && c.part != nil {
		first.result.Repeated, first.result.Staged, first.result.Rejected = true, c.part.Parts, nil
		return s, first.result
	} else if ok {
		if first.sum != sum {
			result.Rejected = reject(IDReused, fmt.Errorf("the write id %q was used before, at index %d, for another write: make a new id for each write", c.ID, first.result.Index))
			return s, result
		}
		first.result.Repeated = true
		return s, first.result
	}
	if c.part != nil {
		return s.stage(result, c.ID, c.part, len(data))
	}
	var rejection *Rejection
	if c.commit != nil {
		c.Replace, result.Staged, rejection = s.staged(c.ID, c.commit)
		if rejection != nil && rejection.Code == NotStaged {
			result.Rejected = rejection
			return s, result
		}
		result.Staged = 0
	}
	table, directors := s.table, s.directors
	if rejection == nil {
		table, directors, rejection = s.next(c)
	}
	switch {
	case rejection != nil:
		result.Rejected = &Rejection{Code: rejection.Code, Message: rejection.Message} // the cause may be large
	case !table.Same(s.table):
		s.table, s.revision = table, index
		result.Revision = index
	default:
		s.directors = directors
	}
	s.answers = remember(s.answers, answer{id: c.ID, sum: sum, result: result})
	return s, result
}
