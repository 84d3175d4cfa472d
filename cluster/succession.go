package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ipvs-ha/ipvs-ha/timing"
)

// A pollRequest asks a voter whether it would help the asker succeed the leader.
type pollRequest struct {
	Term      uint64 `json:"term"`
	LastIndex uint64 `json:"last_index"`
	LastTerm  uint64 `json:"last_term"`
	// Fitness is the asker's, without reasons.
	Fitness Fitness `json:"fitness"`
}

// A pollAnswer says so, and how long a promise still binds the voter.
type pollAnswer struct {
	Free bool          `json:"free"`
	Wait time.Duration `json:"wait,omitempty"`
}

// succession is what a follower remembers between two rounds of runLease.
type succession struct {
	leader string        // whose promise has ended
	since  time.Duration // its end
	next   time.Duration // no attempt before
}

// succeedLeader stands for election as soon as this node's promise to the leader has
// ended without being renewed, instead of after raft's own timers, which are much
// longer and random. It asks the voters first: a node that merely did not hear the
// leader would depose it, since a candidate's term counts whether it wins or not.
func (n *Node) succeedLeader(ctx context.Context) {
	now := n.cfg.Now()
	to, until := n.guard.promised()
	s := &n.succession
	if leader := n.leader().ID; !n.maySucceed(to, until, now) || leader != "" && leader != to { // it has a successor
		return
	}
	if s.leader != to || s.since != until {
		*s = succession{leader: to, since: until, next: until + n.turn(to)}
	}
	if now < max(s.next, time.Duration(n.yielded.Load())) {
		return
	}
	wait, free := n.poll(ctx)
	if !free {
		s.next = n.cfg.Now() + max(min(wait, n.cfg.Profile.Lease), n.cfg.Profile.Lease/timing.Requests)
		return
	}
	now = n.cfg.Now()
	if to, until := n.guard.promised(); to != s.leader || until != s.since || !n.maySucceed(to, until, now) || now < time.Duration(n.yielded.Load()) {
		return // renewed meanwhile, or somebody else's turn
	}
	n.log.Info("the leader's lease has ended; this node stands for election", "leader", n.book.get(to).Name)
	n.tenures.stands(n.nameOf(to), until, now)
	n.cfg.OnStand()
	s.next = now + n.cfg.Profile.Heartbeat // raft's timers are next
	header := n.rpcHeader()
	n.toRaft(ctx, raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header}, RespChan: make(chan raft.RPCResponse, 1)})
}

// maySucceed reports whether this node's promise to the leader to has ended and it
// may stand for election itself.
func (n *Node) maySucceed(to string, until, now time.Duration) bool {
	return to != "" && to != n.id && until <= now && !n.cfg.NoSuccession && !n.cfg.Witness && n.raft.Load().State() == raft.Follower && !n.guard.voting()
}

// turn is how long this node leaves the succession of the leader to directors that
// come before it: the fitter ones, by the leader's last word of them. One of which it
// said nothing counts as fit.
func (n *Node) turn(leader string) time.Duration {
	var told map[string]Fitness
	if by := n.told.Load(); by != nil {
		told = *by
	}
	own := n.standing()
	wait, fitter := time.Duration(0), false
	others, _ := n.otherVoters()
	for _, s := range others {
		id := string(s.ID)
		if id == leader || n.member(s).Witness {
			continue
		}
		f := told[id].bounded()
		if comesFirst(f, id, own, n.id) {
			wait += n.cfg.Profile.Stagger
		}
		fitter = fitter || f.Class < own.Class
	}
	if fitter { // their promises may end a little later, and they may need a second attempt
		wait += n.cfg.Profile.Lease / 2
	}
	return wait
}

// comesFirst is the order of succession.
func comesFirst(f Fitness, id string, other Fitness, otherID string) bool {
	return cmp.Or(f.compare(other), cmp.Compare(id, otherID)) < 0
}

// poll reports whether a majority of the voters, this node included, would help it,
// and else how long to wait before it is worth asking again.
func (n *Node) poll(ctx context.Context) (wait time.Duration, free bool) {
	r := n.raft.Load()
	request := pollRequest{Term: r.CurrentTerm(), LastIndex: r.LastIndex(), LastTerm: lastLogTerm(r), Fitness: n.standing()}
	request.Fitness.Reasons = nil
	body, err := json.Marshal(request)
	if err != nil {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Profile.Lease/2)
	defer cancel()
	var mu sync.Mutex
	others, votes := n.otherVoters()
	if !votes {
		return 0, false
	}
	voters, willing := len(others)+1, 1
	var wg sync.WaitGroup
	enough := make(chan struct{})
	for _, s := range others {
		wg.Go(func() {
			data, err := n.requests.do(ctx, string(s.ID), n.member(s).Address, requestHead{Method: methodPoll}, body)
			var answer pollAnswer
			if err != nil || json.Unmarshal(data, &answer) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if answer.Free {
				if willing++; willing == voters/2+1 {
					close(enough)
				}
			} else if answer.Wait > 0 && (wait == 0 || answer.Wait < wait) {
				wait = answer.Wait
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select { // a dead peer need not be waited for
	case <-enough:
	case <-done:
	}
	cancel()
	<-done
	return wait, willing > voters/2
}

// answerPoll serves methodPoll. Two that stand at once would split the votes, and
// cost an election timeout. So who may stand itself, comes first and has no older a log
// refuses; and who agrees leaves the other a while. Each of two knows the other's
// fitness from the other itself, so that they do not both refuse.
func (n *Node) answerPoll(from string, body []byte) ([]byte, error) {
	var request pollRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	r := n.raft.Load()
	wait := n.guard.bindsVote(from)
	older := request.LastTerm < lastLogTerm(r) || request.LastTerm == lastLogTerm(r) && request.LastIndex < r.LastIndex()
	now := n.cfg.Now()
	to, until := n.guard.promised()
	same := request.LastTerm == lastLogTerm(r) && request.LastIndex == r.LastIndex()
	mine := same && n.maySucceed(to, until, now) && comesFirst(n.standing(), n.id, request.Fitness.bounded(), from)
	free := wait == 0 && !mine && r.State() == raft.Follower && !n.guard.voting() && r.CurrentTerm() <= request.Term && !older
	if free {
		n.yielded.Store(int64(now + n.cfg.Profile.Heartbeat/2))
	}
	return json.Marshal(pollAnswer{Free: free, Wait: wait})
}

// lastLogTerm is the term of the newest entry of the log; raft tells it nowhere else.
func lastLogTerm(r *raft.Raft) uint64 {
	term, err := strconv.ParseUint(strings.TrimSpace(r.Stats()["last_log_term"]), 10, 64)
	if err != nil {
		return 0
	}
	return term
}
