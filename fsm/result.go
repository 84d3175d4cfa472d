package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Result is a replica's answer to a Command, the same on every replica.
type Result struct {
	Revision uint64     `json:"revision"`           // of the table after the command
	Index    uint64     `json:"index"`              // the log index of the command; for a repeated one, of the first
	Repeated bool       `json:"repeated,omitempty"` // answered from the first write with this id
	Staged   int        `json:"staged,omitempty"`   // of a part, and with NotStaged: how many of Entries need not be proposed again
	Rejected *Rejection `json:"rejected,omitempty"` // nil = applied
}

// Encode returns r in the form that DecodeResult reads.
func (r Result) Encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("fsm: encode a result: %v", err)) // strings and numbers only
	}
	return b
}

// DecodeResult reads what Encode wrote. Unknown fields are ignored: they are a
// newer node's.
func DecodeResult(b []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return Result{}, fmt.Errorf("decode the result of a command: %w", err)
	}
	return r, nil
}

// Code is the reason of a Rejection, for programs.
type Code string

// The codes, with what a Rejection of that code matches under errors.Is.
const (
	Invalid     Code = "invalid"     // malformed, or breaks a rule: ipvs.ErrInvalid
	Exists      Code = "exists"      // adds what is there: os.ErrExist
	NotFound    Code = "not-found"   // sets or deletes what is not there: os.ErrNotExist
	Conflict    Code = "conflict"    // IfRevision is not the table's revision: ErrConflict
	Unsupported Code = "unsupported" // a version that this node does not know: errors.ErrUnsupported
	IDReused    Code = "id-reused"   // the id of an earlier write with other content: ErrIDReused
	NotStaged   Code = "not-staged"  // parts before this entry are missing; nothing was done: ErrNotStaged
)

// Errors that a Rejection matches.
var (
	ErrConflict = errors.New("the table has changed")
	ErrIDReused = errors.New("the write id was used before")
	// ErrNotStaged says that other large writes have pushed out the parts of this one,
	// which may be made again.
	ErrNotStaged = errors.New("parts of the new table are missing")
	// ErrTooLarge is matched beside ipvs.ErrInvalid.
	ErrTooLarge = errors.New("too large")
)

var codeErrors = map[Code]error{
	Invalid:     ipvs.ErrInvalid,
	Exists:      os.ErrExist,
	NotFound:    os.ErrNotExist,
	Conflict:    ErrConflict,
	Unsupported: errors.ErrUnsupported,
	IDReused:    ErrIDReused,
	NotStaged:   ErrNotStaged,
}

// maxMessage bounds Message in bytes, since ten thousand answers are kept.
const maxMessage = 1024

// Rejection says why a command changed nothing. As an error it matches the error
// listed with its code and, when it comes from State.Check, unwraps to the cause
// with all its details.
type Rejection struct {
	Code    Code   `json:"code"`
	Message string `json:"message"` // for people; at most 1024 bytes
	cause   error
}

// Error returns the cause in full where it is known, else Message.
func (r *Rejection) Error() string {
	if r.cause != nil {
		return r.cause.Error()
	}
	return r.Message
}

// Is matches the error that belongs to the code.
func (r *Rejection) Is(target error) bool { return target == codeErrors[r.Code] }

// Unwrap returns the cause, or nil when r was decoded.
func (r *Rejection) Unwrap() error { return r.cause }

func reject(code Code, cause error) *Rejection {
	message := cause.Error()
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage-4], "") + " ..."
	}
	return &Rejection{Code: code, Message: message, cause: cause}
}

// rejectFor finds the code for an error of package ipvs.
func rejectFor(err error) *Rejection {
	for _, code := range []Code{Exists, NotFound} {
		if errors.Is(err, codeErrors[code]) {
			return reject(code, err)
		}
	}
	return reject(Invalid, err)
}

func unsupported(version int) *Rejection {
	return reject(Unsupported, fmt.Errorf("the command has format version %d, this node knows %d: upgrade it", version, Version))
}
