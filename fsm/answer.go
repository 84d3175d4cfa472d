package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// maxAnswers is the number of writes whose repetition is recognised.
const maxAnswers = 10_000

// digest is a SHA-256 of what a command asks for.
type digest [sha256.Size]byte

// digest takes the bytes as the proposer wrote them: encoding the decoded command
// again could differ between releases. By is left out, since a retry may go
// through another node.
func (e envelope) digest() digest {
	h := sha256.New()
	var head [10]byte
	if e.IfRevision != nil {
		head[0] = 1
		binary.BigEndian.PutUint64(head[1:], *e.IfRevision)
	}
	switch {
	case len(e.Replace) > 0:
		head[9] = 1
	case len(e.Directors) > 0:
		head[9] = 2
	case len(e.Commit) > 0:
		head[9] = 3
	}
	h.Write(head[:])
	h.Write(e.Changes)
	h.Write(e.Replace)
	h.Write(e.Directors)
	h.Write(e.Commit)
	return digest(h.Sum(nil))
}

// answer is what a write was answered, kept for its repetition.
type answer struct {
	id     string
	sum    digest
	result Result
}

// remember returns the newest maxAnswers of answers and a. It writes only behind
// the end of answers, so slices that were taken earlier stay as they are; this
// holds because each state has only one successor.
func remember(answers []answer, a answer) []answer {
	if len(answers) == maxAnswers {
		answers = answers[1:]
	}
	return append(answers, a)
}

// Answered reports whether a write with that id has been made, and is still known.
func (s State) Answered(id string) bool {
	return slices.ContainsFunc(s.answers, func(a answer) bool { return a.id == id })
}
