package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

// maxHeldVotes bounds the vote requests that wait for a promise to end.
const maxHeldVotes = 16

// Consumer implements raft.Transport: what peers ask of raft, vote requests only
// after the guard has let them pass.
func (t *transport) Consumer() <-chan raft.RPC { return t.guarded }

// runVotes carries what peers ask to raft until ctx ends.
func (n *Node) runVotes(ctx context.Context) error {
	var held errgroup.Group
	defer func() { _ = held.Wait() }() // they return no error
	held.SetLimit(maxHeldVotes)
	asked := n.transport.NetworkTransport.Consumer()
	for {
		var rpc raft.RPC
		select {
		case <-ctx.Done():
			return nil
		case rpc = <-asked:
		}
		switch request := rpc.Command.(type) {
		case *raft.RequestVoteRequest:
			if !held.TryGo(func() error { n.holdVote(ctx, rpc, request); return nil }) {
				rpc.Respond(&raft.RequestVoteResponse{RPCHeader: n.rpcHeader()}, nil)
			}
		case *raft.RequestPreVoteRequest:
			if n.guard.bindsVote(string(request.ID)) > 0 {
				rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: n.rpcHeader()}, nil)
				continue
			}
			n.toRaft(ctx, rpc)
		case *raft.TimeoutNowRequest: // the leader has chosen this node
			n.tenures.called(n.nameOf(string(request.ID)), n.cfg.Now())
			n.toRaft(ctx, rpc)
		default:
			n.toRaft(ctx, rpc)
		}
	}
}

// holdVote gives a vote request to raft once no promise binds any more. A refusal
// would cost the candidate a whole election; one that waits costs what is left of
// the promise. When that is renewed meanwhile, the candidate is refused. A leader that
// names its heir says so while that one asks already: either may come first.
func (n *Node) holdVote(ctx context.Context, rpc raft.RPC, request *raft.RequestVoteRequest) {
	candidate := string(request.ID)
	for renewed := false; ; {
		early := n.guard.early()
		wait, ok := n.guard.beginVote(candidate, request.Term)
		if ok {
			break
		}
		if renewed {
			rpc.Respond(&raft.RequestVoteResponse{RPCHeader: n.rpcHeader()}, nil)
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-early:
		case <-timer.C:
			renewed = true
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
	answer := make(chan raft.RPCResponse, 1)
	if !n.toRaft(ctx, raft.RPC{Command: request, RespChan: answer}) {
		return
	}
	select {
	case <-ctx.Done():
	case decided := <-answer:
		response, isVote := decided.Response.(*raft.RequestVoteResponse)
		n.guard.endVote(request.Term, isVote && response.Granted, n.raft.Load().CurrentTerm())
		rpc.RespChan <- decided
	}
}

// toRaft returns false when ctx ends first.
func (n *Node) toRaft(ctx context.Context, rpc raft.RPC) bool {
	select {
	case <-ctx.Done():
		return false
	case n.transport.guarded <- rpc:
		return true
	}
}

func (n *Node) rpcHeader() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: n.raftCfg.ProtocolVersion, ID: []byte(n.id), Addr: []byte(n.cfg.advertised())}
}
