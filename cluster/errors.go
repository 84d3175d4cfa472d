package cluster

import "errors"

var (
	// ErrNoLeader says that no leader could be asked in time. What was proposed
	// has certainly not entered a log.
	ErrNoLeader = errors.New("the cluster has no leader")
	// ErrUnknown says that the outcome is unknown: what was proposed may or may
	// not be applied, now or later.
	ErrUnknown = errors.New("outcome unknown")
	// ErrTooLarge says that a command or a request exceeds its limit.
	ErrTooLarge = errors.New("too large")
	// ErrRemoved says that this node was removed from its cluster.
	ErrRemoved = errors.New("this node was removed from the cluster")
	// ErrCopied says that two nodes run with one identity, and that this one, which
	// the members do not know, must stop for good.
	ErrCopied = errors.New("a data directory was copied")
	// ErrDiskStalled says that the data directory's disk did not take a write in time,
	// or at all. Writes of this process may still hang, so that only its end helps.
	ErrDiskStalled = errors.New("the disk stalls or fails")
	// ErrNotFound says that no member has that name or id.
	ErrNotFound = errors.New("no such member")
	// ErrRefused says that a peer or the cluster refuses, with the reason.
	ErrRefused = errors.New("refused")

	// errAgain says that the node asked cannot do it (now), that nothing was
	// done, and that the leader of the moment may be asked again.
	errAgain = errors.New("not the leader")
	// errNotSent says that a request certainly did not reach its peer.
	errNotSent = errors.New("not sent")
)

// A code is an error's identity on the wire.
type code string

const (
	codeOK     code = ""
	codeFailed code = "failed" // no identity, just words
)

var codes = map[code]error{
	"no-leader": ErrNoLeader,
	"unknown":   ErrUnknown,
	"too-large": ErrTooLarge,
	"removed":   ErrRemoved,
	"not-found": ErrNotFound,
	"refused":   ErrRefused,
	"copied":    ErrCopied,
	"again":     errAgain,
}

func codeOf(err error) code {
	if err == nil {
		return codeOK
	}
	for c, sentinel := range codes {
		if errors.Is(err, sentinel) {
			return c
		}
	}
	return codeFailed
}

// A peerError is an error that a peer answered with. It keeps its identity.
type peerError struct {
	code    code
	message string
}

func (e *peerError) Error() string { return e.message }

func (e *peerError) Unwrap() error { return codes[e.code] }
