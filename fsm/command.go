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
	MaxCommandSize = 32 << 20 // bytes, encoded
	MaxID          = 64       // bytes
	MaxBy          = 128      // bytes
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
}

// envelope is the encoded form of a Command. What it asks for stays bytes at first, because the digest that recognises a repeated write is taken of them.
type envelope struct {
	V          int             `json:"v"`
	ID         string          `json:"id"`
	By         string          `json:"by,omitempty"`
	IfRevision *uint64         `json:"if_revision,omitempty"`
	Changes    json.RawMessage `json:"changes,omitempty"`
	Replace    json.RawMessage `json:"replace,omitempty"`
	Directors  json.RawMessage `json:"directors,omitempty"`
}

// Encode returns c as a log entry. The error is a *Rejection.
func (c Command) Encode() ([]byte, error) {
	if c.V == 0 {
		c.V = Version
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	e := envelope{V: c.V, ID: c.ID, By: c.By, IfRevision: c.IfRevision}
	var err error
	switch {
	case c.Replace != nil:
		e.Replace, err = json.Marshal(c.Replace)
	case len(c.Directors) > 0:
		e.Directors, err = json.Marshal(c.Directors)
	default:
		e.Changes, err = json.Marshal(c.Changes)
	}
	if err != nil {
		return nil, reject(Invalid, fmt.Errorf("encode the command: %w", err))
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, reject(Invalid, fmt.Errorf("encode the command: %w", err))
	}
	if len(data) > MaxCommandSize {
		return nil, reject(Invalid, fmt.Errorf("the command has %d bytes, the limit is %d", len(data), MaxCommandSize))
	}
	return data, nil
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
		return Command{}, digest{}, reject(Invalid, fmt.Errorf("the command has %d bytes, the limit is %d", len(data), MaxCommandSize))
	}
	var e envelope
	if err := strictJSON(data, &e); err != nil {
		var other struct{ V int }
		if json.Unmarshal(data, &other) == nil && other.V != Version {
			return Command{}, digest{}, unsupported(other.V)
		}
		return Command{}, digest{}, reject(Invalid, fmt.Errorf("decode the command: %w", err))
	}
	c := Command{V: e.V, ID: e.ID, By: e.By, IfRevision: e.IfRevision}
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
	for _, asked := range []bool{len(c.Changes) > 0, c.Replace != nil, len(c.Directors) > 0} {
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
