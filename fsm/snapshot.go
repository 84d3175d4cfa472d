package fsm

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// A snapshot is lines of JSON: a head, one line for each service, one for each
// answer, one for each stage and each of its parts, and the SHA-256 of all lines
// before it.

// maxLine bounds a line in bytes: a service with MaxServiceDestinations
// destinations, each with a name and a comment, fits.
const maxLine = 32 << 20

type snapshotHead struct {
	V        int            `json:"v"`
	Revision uint64         `json:"revision"`
	Index    uint64         `json:"index"`
	Services int            `json:"services"`
	Answers  int            `json:"answers"`
	Stages   int            `json:"stages,omitempty"`
	Sync     *ipvs.Sync     `json:"sync,omitempty"`
	Timeouts *ipvs.Timeouts `json:"timeouts,omitempty"`
	VIPs     *ipvs.VIPs     `json:"vips,omitempty"`

	Directors []Director `json:"directors,omitempty"`
}

type snapshotAnswer struct {
	ID     string `json:"id"`
	SHA256 string `json:"sha256"`
	Result
}

// snapshotStage is followed by as many lines of pieces as it has.
type snapshotStage struct {
	ID string `json:"id"`
	stageName
	Pieces  int    `json:"pieces"`
	Running string `json:"running"` // SHA-256 over the pieces
	Size    int    `json:"size"`
	Used    uint64 `json:"used"`
}

type snapshotSum struct {
	SHA256 string `json:"sha256"`
}

func writeSnapshot(w io.Writer, s State) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	h := sha256.New()
	if err := s.encode(io.MultiWriter(buffered, h)); err != nil {
		return err
	}
	if err := json.NewEncoder(buffered).Encode(snapshotSum{hex.EncodeToString(h.Sum(nil))}); err != nil {
		return err
	}
	return buffered.Flush()
}

// encode writes all lines but the last.
func (s State) encode(w io.Writer) error {
	enc := json.NewEncoder(w)
	doc := s.table.Settings()
	head := snapshotHead{
		V: Version, Revision: s.revision, Index: s.index, Services: s.table.Len(), Answers: len(s.answers), Stages: len(s.stages),
		Sync: doc.Sync, Timeouts: doc.Timeouts, VIPs: doc.VIPs, Directors: s.directors,
	}
	if err := enc.Encode(head); err != nil {
		return err
	}
	for service := range s.table.Services() {
		if err := enc.Encode(service); err != nil {
			return err
		}
	}
	for _, a := range s.answers {
		if err := enc.Encode(snapshotAnswer{ID: a.id, SHA256: hex.EncodeToString(a.sum[:]), Result: a.result}); err != nil {
			return err
		}
	}
	for _, g := range s.stages {
		if err := enc.Encode(snapshotStage{ID: g.id, stageName: g.stageName, Pieces: len(g.pieces), Running: g.sum.String(), Size: g.size, Used: g.used}); err != nil {
			return err
		}
		for i := range g.pieces {
			if err := enc.Encode(&g.pieces[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// readSnapshot returns the state only when every line has been read and the sum
// is right.
func readSnapshot(r io.Reader) (State, error) {
	lines := lineReader{scanner: bufio.NewScanner(r), hash: sha256.New()}
	lines.scanner.Buffer(nil, maxLine)
	head, err := lines.head()
	if err != nil {
		return State{}, err
	}
	doc := ipvs.Document{Sync: head.Sync, Timeouts: head.Timeouts, VIPs: head.VIPs}
	for range head.Services {
		var s ipvs.Service
		if err := lines.next(&s); err != nil {
			return State{}, err
		}
		doc.Services = append(doc.Services, s)
	}
	state := State{revision: head.Revision, index: head.Index, directors: head.Directors}
	for range head.Answers {
		a, err := lines.answer()
		if err != nil {
			return State{}, err
		}
		state.answers = append(state.answers, a)
	}
	for range head.Stages {
		g, err := lines.stage(head.Index)
		if err != nil {
			return State{}, err
		}
		state.stages = append(state.stages, g)
	}
	if err := lines.sum(); err != nil {
		return State{}, err
	}
	if state.table, err = doc.Table(); err != nil {
		return State{}, fmt.Errorf("the table is not valid: %w", err)
	}
	return state, nil
}

// lineReader decodes lines and sums up their bytes.
type lineReader struct {
	scanner *bufio.Scanner
	hash    hash.Hash
	number  int
}

// next decodes the next line into v; unknown fields are errors.
func (l *lineReader) next(v any) error {
	l.number++
	if !l.scanner.Scan() {
		if err := l.scanner.Err(); err != nil {
			return fmt.Errorf("line %d: %w", l.number, err)
		}
		return fmt.Errorf("line %d: %w", l.number, io.ErrUnexpectedEOF)
	}
	l.hash.Write(l.scanner.Bytes())
	l.hash.Write([]byte{'\n'})
	if err := strictJSON(l.scanner.Bytes(), v); err != nil {
		return fmt.Errorf("line %d: %w", l.number, err)
	}
	return nil
}

func (l *lineReader) head() (snapshotHead, error) {
	var head snapshotHead
	err := l.next(&head)
	var other struct{ V int }
	if json.Unmarshal(l.scanner.Bytes(), &other) == nil && other.V != Version {
		return head, fmt.Errorf("it has format version %d, this node knows %d: upgrade it: %w", other.V, Version, errors.ErrUnsupported)
	}
	switch {
	case err != nil:
	case head.Services < 0 || head.Services > ipvs.MaxServices:
		err = fmt.Errorf("line 1: %d services, the limit is %d", head.Services, ipvs.MaxServices)
	case head.Answers < 0 || head.Answers > maxAnswers:
		err = fmt.Errorf("line 1: %d answers, the limit is %d", head.Answers, maxAnswers)
	case head.Stages < 0 || head.Stages > maxStages:
		err = fmt.Errorf("line 1: %d stages, the limit is %d", head.Stages, maxStages)
	case head.Revision > head.Index:
		err = fmt.Errorf("line 1: revision %d is above index %d", head.Revision, head.Index)
	default:
		if err = checkDirectors(head.Directors); err != nil {
			err = fmt.Errorf("line 1: %w", err)
		}
	}
	return head, err
}

func (l *lineReader) answer() (answer, error) {
	var written snapshotAnswer
	if err := l.next(&written); err != nil {
		return answer{}, err
	}
	sum, err := l.digest(written.SHA256)
	return answer{id: written.ID, sum: sum, result: written.Result}, err
}

func (l *lineReader) digest(text string) (digest, error) {
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != sha256.Size {
		return digest{}, fmt.Errorf("line %d: %q is not a SHA-256", l.number, text)
	}
	return digest(sum), nil
}

func (l *lineReader) stage(index uint64) (stage, error) {
	var written snapshotStage
	if err := l.next(&written); err != nil {
		return stage{}, err
	}
	g := stage{id: written.ID, stageName: written.stageName, size: written.Size, used: written.Used}
	if err := g.check(); err != nil {
		return stage{}, fmt.Errorf("line %d: %w", l.number, err)
	}
	if written.Pieces > g.Parts || g.size < 0 || g.size > maxStaged || g.used > index {
		return stage{}, fmt.Errorf("line %d: %d of %d parts, %d bytes, used at index %d", l.number, written.Pieces, g.Parts, g.size, g.used)
	}
	var err error
	if g.sum, err = l.digest(written.Running); err != nil {
		return stage{}, err
	}
	for range written.Pieces {
		var p piece
		if err := l.next(&p); err != nil {
			return stage{}, err
		}
		g.pieces = append(g.pieces, p)
	}
	return g, nil
}

// sum reads the last line and compares.
func (l *lineReader) sum() error {
	have := hex.EncodeToString(l.hash.Sum(nil))
	var written snapshotSum
	if err := l.next(&written); err != nil {
		return err
	}
	if written.SHA256 != have {
		return errors.New("the checksum does not fit: the snapshot is damaged")
	}
	if l.scanner.Scan() || l.scanner.Err() != nil {
		return errors.New("there is more after the end")
	}
	return nil
}
