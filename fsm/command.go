package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Version is the format version of the commands and snapshots that this release
// writes. A new field that is left out at its default keeps the version: who does
// not know it refuses the entry, as it would refuse a newer version, and reads
// everything else as before.
const Version = 1

// Limits of a command.
const (
	MaxCommandSize = ipvs.MaxCommand // bytes, encoded
	MaxID          = 64              // bytes
	MaxBy          = 128             // bytes
)

// Command is one write, all or nothing: edits of the table, a new table, or settings
// of directors, exactly one of these.
type Command struct {
	V          int            // format version; 0 is written as Version
	ID         string         // 1..MaxID visible ASCII characters, made by the client, the same when it tries again
	By         string         // who asked, for people; at most MaxBy bytes, may be empty
	IfRevision *uint64        // refuse unless the table has this revision; nil = any
	Changes    []ipvs.Change  // edits in order
	Replace    *ipvs.Document // the whole new table
	Directors  []DirectorSetting

	part   *part   // of a table that Entries has split
	commit *commit // of its parts
}

// envelope is the encoded form of a Command. What it asks for stays bytes at first,
// because the digest that recognises a repeated write is taken of them.
type envelope struct {
	V          int             `json:"v"`
	ID         string          `json:"id"`
	By         string          `json:"by,omitempty"`
	IfRevision *uint64         `json:"if_revision,omitempty"`
	Changes    json.RawMessage `json:"changes,omitempty"`
	Replace    json.RawMessage `json:"replace,omitempty"`
	Directors  json.RawMessage `json:"directors,omitempty"`
	Part       *part           `json:"part,omitempty"`
	Commit     json.RawMessage `json:"commit,omitempty"`
}

// Encode returns c as one log entry. The error is a *Rejection, and matches
// ErrTooLarge when one is not enough; Entries then helps with a whole new table.
func (c Command) Encode() ([]byte, error) { return c.encode(MaxCommandSize) }

func (c Command) encode(limit int) ([]byte, error) {
	if c.V == 0 {
		c.V = Version
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	e := envelope{V: c.V, ID: c.ID, By: c.By, IfRevision: c.IfRevision, Part: c.part}
	var err error
	switch {
	case c.Replace != nil:
		e.Replace, err = json.Marshal(c.Replace)
	case len(c.Directors) > 0:
		e.Directors, err = json.Marshal(c.Directors)
	case c.commit != nil:
		e.Commit, err = json.Marshal(c.commit)
	case c.part == nil:
		e.Changes, err = json.Marshal(c.Changes)
	}
	if err != nil {
		return nil, reject(Invalid, fmt.Errorf("encode the command: %w", err))
	}
	return marshal(e, limit)
}

func marshal(e envelope, limit int) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, reject(Invalid, fmt.Errorf("encode the command: %w", err))
	}
	if len(data) > limit {
		return nil, tooLarge(len(data), limit)
	}
	return data, nil
}

func tooLarge(size, limit int) *Rejection {
	return reject(Invalid, fmt.Errorf("%w: the command has %d bytes as a log entry, the limit is %d; only a whole new table may be larger", ErrTooLarge, size, limit))
}

// DecodeCommand reads what Encode wrote. Unknown fields and trailing data are
// errors. The error is a *Rejection, with code Unsupported for another version.
// The command's changes are well-formed, not valid: State.Check says that.
func DecodeCommand(data []byte) (Command, error) {
	c, _, err := decode(data)
	return c, err
}

func decode(data []byte) (Command, digest, error) {
	if len(data) > MaxCommandSize {
		return Command{}, digest{}, tooLarge(len(data), MaxCommandSize)
	}
	var e envelope
	if err := strictJSON(data, &e); err != nil {
		var other struct{ V int }
		if json.Unmarshal(data, &other) == nil && other.V != Version {
			return Command{}, digest{}, unsupported(other.V)
		}
		return Command{}, digest{}, reject(Invalid, fmt.Errorf("decode the command: %w", err))
	}
	c := Command{V: e.V, ID: e.ID, By: e.By, IfRevision: e.IfRevision, part: e.Part}
	if c.V != Version {
		return Command{}, digest{}, unsupported(c.V)
	}
	if len(e.Changes) > 0 {
		if err := strictJSON(e.Changes, &c.Changes); err != nil {
			return Command{}, digest{}, reject(Invalid, fmt.Errorf("decode the changes: %w", err))
		}
	}
	if len(e.Replace) > 0 {
		if err := strictJSON(e.Replace, &c.Replace); err != nil {
			return Command{}, digest{}, reject(Invalid, fmt.Errorf("decode the new table: %w", err))
		}
	}
	if len(e.Directors) > 0 {
		if err := strictJSON(e.Directors, &c.Directors); err != nil {
			return Command{}, digest{}, reject(Invalid, fmt.Errorf("decode the settings of directors: %w", err))
		}
	}
	if len(e.Commit) > 0 {
		if err := strictJSON(e.Commit, &c.commit); err != nil {
			return Command{}, digest{}, reject(Invalid, fmt.Errorf("decode the commit: %w", err))
		}
	}
	if err := c.check(); err != nil {
		return Command{}, digest{}, err
	}
	return c, e.digest(), nil
}

// check reports what can be seen without the table.
func (c Command) check() error {
	if c.V != Version {
		return unsupported(c.V)
	}
	var errs []error
	if len(c.ID) == 0 || len(c.ID) > MaxID {
		errs = append(errs, fmt.Errorf("the write id has %d characters, want 1 to %d", len(c.ID), MaxID))
	}
	for i := range len(c.ID) {
		if c.ID[i] <= ' ' || c.ID[i] > '~' {
			errs = append(errs, fmt.Errorf("the write id %q holds something else than visible ASCII characters", c.ID))
			break
		}
	}
	if len(c.By) > MaxBy || !utf8.ValidString(c.By) || !printable(c.By) {
		errs = append(errs, fmt.Errorf("the author must be printable text of at most %d bytes", MaxBy))
	}
	asks := 0
	for _, asked := range []bool{len(c.Changes) > 0, c.Replace != nil, len(c.Directors) > 0, c.part != nil, c.commit != nil} {
		if asked {
			asks++
		}
	}
	if asks != 1 {
		errs = append(errs, errors.New("want either changes, a new table or settings of directors"))
	}
	if len(c.Directors) > MaxDirectors {
		errs = append(errs, fmt.Errorf("%d settings of directors, the limit is %d", len(c.Directors), MaxDirectors))
	}
	for _, d := range c.Directors {
		if err := d.check(); err != nil {
			errs = append(errs, err)
		}
	}
	if p := c.part; p != nil {
		if err := p.check(); err != nil {
			errs = append(errs, err)
		}
		if c.IfRevision != nil {
			errs = append(errs, errors.New("a part of a table has no condition; its commit has"))
		}
		if p.Number < 0 || p.Number >= p.Parts {
			errs = append(errs, fmt.Errorf("part %d of %d", p.Number, p.Parts))
		}
	}
	if c.commit != nil {
		if err := c.commit.check(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return reject(Invalid, errors.Join(errs...))
	}
	return nil
}

func printable(text string) bool {
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// strictJSON decodes exactly one value without unknown fields.
func strictJSON(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("there is more after the end")
	}
	return nil
}
