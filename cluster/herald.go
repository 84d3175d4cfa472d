package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// A herald tells the followers at once what is committed. Raft itself tells it with
// the next entry, or else after the profile's Commit to twice that: for so long a
// single change would be in the leader's kernel alone.
//
// What it sends is what raft's own goroutine sends a moment later: the last request to
// that follower without its entries, which it has by then, and with the newest commit
// index.
type herald struct {
	send func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error
	// indexes returns those of the newest entry that is committed and of the newest that
	// is in this node's log, and raft's term, which is read after them.
	indexes func() (committed, last, term uint64)

	mu        sync.Mutex
	followers map[raft.ServerID]*follower
	closed    bool
	telling   sync.WaitGroup // none begins once it is closed
}

// A follower is what a follower is known to have.
type follower struct {
	target raft.ServerAddress
	// request is the last that it took, as if all entries had come before. Its commit
	// index is the newest that the follower was told.
	request raft.AppendEntriesRequest
	busy    bool // it is being told
}

// took notes that a follower has the entries of a request. When they were committed
// without it, it is told now.
func (h *herald) took(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest) {
	if len(args.Entries) == 0 {
		return
	}
	end := args.Entries[len(args.Entries)-1]
	request := *args
	request.Entries, request.PrevLogEntry, request.PrevLogTerm = nil, end.Index, end.Term
	h.mu.Lock()
	if h.followers == nil {
		h.followers = map[raft.ServerID]*follower{}
	}
	f := h.followers[id]
	if f == nil {
		f = &follower{}
		h.followers[id] = f
	}
	f.target, f.request = target, request
	h.mu.Unlock()
	h.tell(id)
}

// committed tells all followers that lack nothing else.
func (h *herald) committed() {
	h.mu.Lock()
	var ids []raft.ServerID
	for id := range h.followers {
		ids = append(ids, id)
	}
	h.mu.Unlock()
	for _, id := range ids {
		h.tell(id)
	}
}

// tell tells a follower what is committed of what it has, unless the next entry is
// about to. It does not wait for the answer, and a failure is left to raft. What is
// committed in a later term than that of the request may be something else.
func (h *herald) tell(id raft.ServerID) {
	committed, last, term := h.indexes()
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.followers[id]
	if h.closed || f.busy || f.request.Term != term || f.request.PrevLogEntry < last || committed < last || f.request.LeaderCommitIndex >= committed {
		return
	}
	f.busy, f.request.LeaderCommitIndex = true, committed
	request, target := f.request, f.target
	h.telling.Go(func() {
		var response raft.AppendEntriesResponse
		_ = h.send(id, target, &request, &response)
		h.mu.Lock()
		f.busy = false
		h.mu.Unlock()
		h.tell(id) // of what was committed meanwhile
	})
}

// close waits for what is being told. The connections must be closed, so that it is short.
func (h *herald) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.telling.Wait()
}
