package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const (
	enqueueTimeout = time.Second // until raft's main loop takes a command
	pollInterval   = 20 * time.Millisecond
	lateAnswer     = 500 * time.Millisecond // after leadership has ended
)

// Propose replicates cmd and returns its log index and the state machine's response
// once it is committed and applied on the leader. Any member may propose. It waits
// for a leader for a few election timeouts, and never retries a command that may
// have entered a log. Errors match ErrNoLeader (certainly not applied), ErrUnknown
// (may be applied, now or later; also when ctx ends) or ErrTooLarge (above
// MaxCommand).
func (n *Node) Propose(ctx context.Context, cmd []byte) (index uint64, response []byte, err error) {
	if len(cmd) > MaxCommand {
		return 0, nil, fmt.Errorf("propose: command of %d bytes: %w: at most %d", len(cmd), ErrTooLarge, MaxCommand)
	}
	answer, err := n.atLeader(ctx, methodPropose, cmd, false)
	if err != nil {
		return 0, nil, fmt.Errorf("propose: %w", err)
	}
	return cutIndex(answer)
}

// ReadIndex returns an index such that a state machine that has applied it holds
// everything that was committed before the call. Any member may ask; errors match
// ErrNoLeader.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	answer, err := n.atLeader(ctx, methodReadIndex, nil, true)
	if err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	index, _, err := cutIndex(answer)
	return index, err
}

// Call asks the Handler of the member with that id; this node's own too. An error
// of the Handler comes back as words.
func (n *Node) Call(ctx context.Context, id, method string, body []byte) ([]byte, error) {
	if id == n.id {
		return n.cfg.Handler(ctx, id, method, body)
	}
	e := n.book.get(id)
	if s, ok := n.server(id); ok {
		e = n.member(s)
	}
	answer, err := n.requests.do(ctx, id, e.Address, requestHead{Method: methodCall, Agent: method}, body)
	if err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", method, e.Name, err)
	}
	return answer, nil
}

// atLeader has the leader of the moment serve a request, wherever it is. What
// certainly did not happen is tried again for a few election timeouts; what may
// have happened only when it is repeatable.
func (n *Node) atLeader(ctx context.Context, method string, body []byte, repeatable bool) ([]byte, error) {
	giveUp, asked := time.Now().Add(n.leaderWait()), ""
	for {
		leader := n.leader()
		answer, err := n.tryLeader(ctx, leader, method, body)
		if leader.ID != asked { // the wait for the next leader begins
			giveUp, asked = time.Now().Add(n.leaderWait()), leader.ID
		}
		var fromPeer *peerError
		certain := errors.Is(err, errAgain) || errors.Is(err, errNotSent) || errors.Is(err, ErrNoLeader)
		switch {
		case err == nil:
			return answer, nil
		case certain && !errors.Is(err, ErrTooLarge), repeatable && !errors.As(err, &fromPeer):
		case certain, errors.As(err, &fromPeer), codeOf(err) != codeFailed:
			return nil, err
		default:
			return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		if ctx.Err() == nil && time.Now().Before(giveUp) {
			select {
			case <-ctx.Done():
			case <-n.stopped:
			case <-time.After(pollInterval):
				continue
			}
		}
		if errors.Is(err, ErrNoLeader) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
}

// leaderWait is how long a request waits for a leader to appear: a few elections.
func (n *Node) leaderWait() time.Duration { return 5 * n.cfg.Profile.Election }

func (n *Node) tryLeader(ctx context.Context, leader entry, method string, body []byte) ([]byte, error) {
	switch leader.ID {
	case "":
		return nil, ErrNoLeader
	case n.id:
	default:
		ctx, cancel := n.whileLeads(ctx, leader.ID)
		defer cancel()
		return n.requests.do(ctx, leader.ID, leader.Address, requestHead{Method: method}, body)
	}
	switch method {
	case methodPropose:
		index, response, err := n.proposeHere(ctx, body)
		return appendIndex(index, response), err
	case methodReadIndex:
		index, err := n.readIndexHere(ctx)
		return appendIndex(index, nil), err
	}
	return n.leadHere(ctx, method, string(body))
}

// whileLeads returns a context that ends soon after the node with that id has
// ceased to lead: a request to a dead host need not wait for its own deadline.
func (n *Node) whileLeads(ctx context.Context, id string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(lateAnswer / 2)
		defer tick.Stop()
		for gone := 0; gone < 2; { // a leader of a moment ago may be about to answer
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if n.leader().ID == id {
				gone = 0
			} else {
				gone++
			}
		}
		cancel()
	}()
	return ctx, cancel
}

// proposeHere serves methodPropose: it puts cmd into this leader's log.
func (n *Node) proposeHere(ctx context.Context, cmd []byte) (index uint64, response []byte, err error) {
	if len(cmd) > MaxCommand {
		return 0, nil, fmt.Errorf("command of %d bytes: %w", len(cmd), ErrTooLarge)
	}
	if !n.isLeader() {
		return 0, nil, errAgain
	}
	r := n.raft.Load()
	future, err := await(ctx, func() (raft.ApplyFuture, error) {
		future := r.Apply(cmd, enqueueTimeout)
		return future, future.Error()
	})
	n.noteTransfer(err)
	if err != nil {
		return 0, nil, classify(err)
	}
	n.transport.herald.committed()
	response, ok := future.Response().([]byte)
	if !ok {
		return 0, nil, fmt.Errorf("command %d is committed, but the state machine answered with %T", future.Index(), future.Response())
	}
	return future.Index(), response, nil
}

// noteTransfer remembers since when raft has refused writes because of a leadership
// transfer; err is its answer to one.
func (n *Node) noteTransfer(err error) {
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		now := time.Now()
		n.stuckSince.CompareAndSwap(nil, &now)
	} else if err == nil {
		n.stuckSince.Store(nil)
	}
}

// readIndexHere serves methodReadIndex on the leader. The state machine of a new
// leader may lag behind its predecessor's, hence the barrier, once a term. From then
// on it has applied whatever was answered, since it answers after applying. Raft's
// commit index will not do: it counts entries that no state machine ever sees.
func (n *Node) readIndexHere(ctx context.Context) (uint64, error) {
	term, ok := n.leading()
	if !ok {
		return 0, errAgain
	}
	if n.barrier.Load() != term {
		if err := n.commitAll(ctx); err != nil {
			return 0, err
		}
		if now, ok := n.leading(); !ok || now != term {
			return 0, errAgain
		}
		n.barrier.Store(term)
	}
	index := n.cfg.Applied()
	if err := n.proveTerm(ctx, term); err != nil {
		return 0, err
	}
	return index, nil
}

// commitAll returns once everything in this leader's log is committed and applied
// here, its newest configuration included. Errors match errAgain.
func (n *Node) commitAll(ctx context.Context) error {
	_, err := await(ctx, func() (struct{}, error) { return struct{}{}, n.raft.Load().Barrier(enqueueTimeout).Error() })
	n.noteTransfer(err)
	if err != nil {
		return fmt.Errorf("%w: %v", errAgain, err)
	}
	return nil
}

// proveTerm returns nil when no later term than term had a leader when it was
// called: a majority, asked since, is not beyond term. Raft's VerifyLeader is no
// such proof, since it counts late answers to what it asked before. Errors match
// errAgain.
func (n *Node) proveTerm(ctx context.Context, term uint64) error {
	others, votes := n.otherVoters()
	voters, proofs := len(others), 0
	if votes {
		voters, proofs = voters+1, 1
	}
	answers := make(chan bool, len(others))
	for _, s := range others {
		go func() { // it outlives this call: to cut an answer short costs a connection
			ctx, cancel := context.WithTimeout(n.work, n.probeTimeout())
			defer cancel()
			h, err := n.askHello(ctx, string(s.ID), n.member(s).Address)
			answers <- err == nil && h.Term > 0 && h.Term <= term
		}()
	}
	for range others {
		if proofs > voters/2 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errAgain, ctx.Err())
		case yes := <-answers:
			if yes {
				proofs++
			}
		}
	}
	if now, ok := n.leading(); !ok || now != term || proofs <= voters/2 {
		return errAgain
	}
	return nil
}

// appendIndex and cutIndex carry an index (eight bytes, big endian) before a body.
func appendIndex(index uint64, body []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, index), body...)
}

func cutIndex(data []byte) (uint64, []byte, error) {
	if len(data) < 8 {
		return 0, nil, fmt.Errorf("answer of %d bytes is too short", len(data))
	}
	return binary.BigEndian.Uint64(data), data[8:], nil
}
