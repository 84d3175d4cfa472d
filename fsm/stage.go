package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// A table that is too large for one log entry comes in parts, which are kept in the
// state and seen by nobody, and a commit, which makes the table of them at once or
// not at all. The parts are decoded as they come, so that the commit is quick.
//
// A part that comes twice changes nothing, so whoever does not know whether one has
// arrived sends it again. Stages that nobody goes on with are dropped: the one that
// was used least lately, when another needs its room, and any after stageLife.

// Limits of what is staged.
const (
	maxStages = 4
	maxStaged = ipvs.MaxDocument // bytes of log entries, of all stages
	maxParts  = 1024             // of one stage
	stageLife = 10_000           // log indexes since a stage was used
)

// stageName says which parts belong together: those of one write, with one sum over
// all of them, which also tells their order.
type stageName struct {
	Sum   string `json:"sum"`   // SHA-256, hexadecimal; see chain
	Parts int    `json:"parts"` // 1..maxParts
}

func (n stageName) check() error {
	if sum, err := hex.DecodeString(n.Sum); err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("%q is not a SHA-256", n.Sum)
	}
	if n.Parts < 1 || n.Parts > maxParts {
		return fmt.Errorf("a table in %d parts, the limit is %d", n.Parts, maxParts)
	}
	return nil
}

// part is the encoded form of one part.
type part struct {
	stageName
	Number    int             `json:"number"`              // from 0
	Continues bool            `json:"continues,omitempty"` // the first service has the next destinations of the last one before
	Services  json.RawMessage `json:"services"`
}

// commit is the encoded form of what ends a stage: the parts become the services of
// the new table.
type commit struct {
	stageName
	Sync     *ipvs.Sync     `json:"sync,omitempty"`
	Timeouts *ipvs.Timeouts `json:"timeouts,omitempty"`
	VIPs     *ipvs.VIPs     `json:"vips,omitempty"`
}

// chain returns the sum over p and all parts before it, of which sum is that.
func (p *part) chain(sum digest) digest {
	h := sha256.New()
	h.Write(sum[:])
	continues := []byte{0}
	if p.Continues {
		continues[0] = 1
	}
	h.Write(continues)
	h.Write(p.Services)
	return digest(h.Sum(nil))
}

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// stage is what has come of a table. It is immutable but for the end of pieces,
// behind which the next state appends; see remember.
type stage struct {
	id string // of the write
	stageName
	pieces []piece
	sum    digest // over pieces
	size   int    // bytes of their log entries
	used   uint64 // log index of the last part
}

// piece is a decoded part.
type piece struct {
	Continues bool           `json:"continues,omitempty"`
	Services  []ipvs.Service `json:"services"`
}

// stage applies a part. The result says how many parts there are then.
func (s State) stage(result Result, id string, p *part, size int) (State, Result) {
	at := slices.IndexFunc(s.stages, func(g stage) bool { return g.id == id && g.stageName == p.stageName })
	g := stage{id: id, stageName: p.stageName}
	if at >= 0 {
		g = s.stages[at]
	}
	result.Staged = len(g.pieces)
	switch {
	case p.Number > len(g.pieces):
		result.Rejected = reject(NotStaged, fmt.Errorf("part %d of the table came, and %d parts are there: they were dropped for want of room, or got lost", p.Number, len(g.pieces)))
		return s, result
	case p.Number == len(g.pieces):
		next := piece{Continues: p.Continues}
		if err := strictJSON(p.Services, &next.Services); err != nil {
			result.Rejected = reject(Invalid, fmt.Errorf("decode part %d of the table: %w", p.Number, err))
			return s, result
		}
		if g.size += size; g.size > maxStaged {
			result.Rejected = reject(Invalid, fmt.Errorf("the new table has more than %d bytes in its log entries, which is the limit", maxStaged))
			return s, result
		}
		g.pieces, g.sum = append(g.pieces, next), p.chain(g.sum)
		result.Staged++
	}
	g.used = result.Index
	s.stages = makeRoom(s.without(at), g)
	return s, result
}

// makeRoom returns stages with g as the one used last, without the oldest ones that
// have no room beside it.
func makeRoom(stages []stage, g stage) []stage {
	size := g.size
	for _, other := range stages {
		size += other.size
	}
	for len(stages) >= maxStages || size > maxStaged {
		size -= stages[0].size
		stages = stages[1:]
	}
	return append(slices.Clip(stages), g)
}

// without returns the stages but the one at i, -1 being none.
func (s State) without(i int) []stage {
	if i < 0 {
		return s.stages
	}
	return slices.Concat(s.stages[:i], s.stages[i+1:])
}

// expire drops the stages that nobody goes on with.
func (s State) expire(index uint64) State {
	for len(s.stages) > 0 && index-s.stages[0].used > stageLife {
		s.stages = s.stages[1:]
	}
	return s
}

// staged finds the stage that c ends, as a document, and takes it off the state. A
// rejection with code NotStaged leaves everything as it is, and the number says how
// many parts there are.
func (s *State) staged(id string, c *commit) (*ipvs.Document, int, *Rejection) {
	at := slices.IndexFunc(s.stages, func(g stage) bool { return g.id == id && g.stageName == c.stageName })
	if at < 0 {
		return nil, 0, reject(NotStaged, errors.New("the parts of the new table are not there: they were dropped for want of room, or got lost"))
	}
	g := s.stages[at]
	if len(g.pieces) < g.Parts {
		return nil, len(g.pieces), reject(NotStaged, fmt.Errorf("%d of %d parts of the new table are there", len(g.pieces), g.Parts))
	}
	s.stages = s.without(at)
	if g.sum.String() != g.Sum {
		return nil, g.Parts, reject(Invalid, errors.New("the parts of the new table are not those that were announced"))
	}
	doc, err := g.document()
	if err != nil {
		return nil, g.Parts, reject(Invalid, err)
	}
	doc.Sync, doc.Timeouts, doc.VIPs = c.Sync, c.Timeouts, c.VIPs
	return doc, g.Parts, nil
}

// document puts the pieces together.
func (g stage) document() (*ipvs.Document, error) {
	doc := &ipvs.Document{}
	for i, p := range g.pieces {
		services := p.Services
		if p.Continues {
			last := len(doc.Services) - 1
			if last < 0 || len(services) == 0 || services[0].Key != doc.Services[last].Key {
				return nil, fmt.Errorf("part %d of the new table continues another service than the one before", i)
			}
			doc.Services[last].Destinations = slices.Concat(doc.Services[last].Destinations, services[0].Destinations)
			services = services[1:]
		}
		doc.Services = append(doc.Services, services...)
	}
	return doc, nil
}
