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

// A pollAnswer says so, and in what time the lease will have ended that the voter has
// granted.
type pollAnswer struct {
	Free bool          `json:"free"`
	Wait time.Duration `json:"wait,omitempty"`
}

// succession is what a follower remembers between two rounds of runLease.
type succession struct {
	leader string        // whose lease has ended
	since  time.Duration // the end of the promise to it
	next   time.Duration // no attempt before
}

// succeedLeader stands for election as soon as the lease has ended that this node's promise
// to the leader was for, instead of after raft's own timers, which are much
// longer and random. It asks the voters first: a node that merely did not hear the
// leader would depose it, since a candidate's term counts whether it wins or not. It
// returns in what time it may have to be called again, if nothing happens.
func (n *Node) succeedLeader(ctx context.Context) time.Duration {
	now, length := n.cfg.Now(), n.cfg.Profile.Lease
	to, until := n.guard.promised()
	if !n.maySucceed(to) {
		return length
	}
	over := leaseOver(until)
	if now < over {
		return over - now
	}
	if leader := n.leader().ID; leader != "" && leader != to { // it has a successor
		return length
	}
	s := &n.succession
	if s.leader != to || s.since != until {
		*s = succession{leader: to, since: until, next: over}
		if turn := n.turn(to); turn > 0 { // the first one's votes wait for the promises' end
			s.next = until + turn
		}
	}
	if turn := max(s.next, time.Duration(n.yielded.Load())); now < turn {
		return turn - now
	}
	wait, free := n.poll(ctx, to)
	if !free {
		s.next = now + min(wait, length)
		if wait == 0 { // it is not for a lease that they do not agree
			s.next = n.cfg.Now() + length/timing.Requests
		}
		return max(s.next-n.cfg.Now(), time.Millisecond)
	}
	now = n.cfg.Now()
	if to, until := n.guard.promised(); to != s.leader || until != s.since || !n.maySucceed(to) || now < time.Duration(n.yielded.Load()) || !n.guard.concede(n.id) {
		return length / timing.Requests // renewed meanwhile, or somebody else's turn
	}
	n.log.Info("the leader's lease has ended; this node stands for election", "leader", n.book.get(to).Name)
	n.tenures.stands(n.nameOf(to), over, now)
	n.stands.Store(int64(now + length))
	time.AfterFunc(length, n.cfg.OnChange)
	n.cfg.OnStand()
	s.next = now + n.cfg.Profile.Heartbeat // raft's timers are next
	header := n.rpcHeader()
	n.toRaft(ctx, raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header}, RespChan: make(chan raft.RPCResponse, 1)})
	return n.cfg.Profile.Heartbeat
}

// maySucceed reports whether this node may stand for election itself once the lease of the
// leader to, which it has promised to, has ended.
func (n *Node) maySucceed(to string) bool {
	return to != "" && to != n.id && !n.cfg.NoSuccession && !n.cfg.Witness && n.raft.Load().State() == raft.Follower && !n.guard.voting()
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

// poll reports whether a majority of the voters, this node included, would help it succeed
// the leader former, and else how long to wait before it is worth asking again, 0: not
// known. It waits itself for leases that end in a moment: voters hear a leader one a little
// later than the other.
func (n *Node) poll(ctx context.Context, former string) (wait time.Duration, free bool) {
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
	var asked, awaited sync.WaitGroup
	enough := make(chan struct{})
	for _, s := range others {
		ask := func() {
			answer := n.askPoll(ctx, s, body)
			mu.Lock()
			defer mu.Unlock()
			if answer.Free {
				if willing++; willing == voters/2+1 {
					close(enough)
				}
			} else if answer.Wait > 0 && (wait == 0 || answer.Wait < wait) {
				wait = answer.Wait
			}
		}
		if string(s.ID) == former && len(others) > 1 { // it is lost, as a rule, and answers nothing
			asked.Go(ask)
		} else {
			awaited.Go(ask)
		}
	}
	done, all := make(chan struct{}), make(chan struct{})
	go func() { awaited.Wait(); close(done); asked.Wait(); close(all) }()
	select { // another dead peer need not be waited for either
	case <-enough:
	case <-done:
		select { // but the former leader may be back, and agree
		case <-enough:
		case <-all:
		case <-time.After(n.cfg.Profile.Lease / timing.Requests):
		}
	}
	cancel()
	<-all
	return wait, willing > voters/2
}

// askPoll asks one voter until it agrees, or would not for longer than a moment. The zero
// answer stands for none.
func (n *Node) askPoll(ctx context.Context, s raft.Server, body []byte) pollAnswer {
	for {
		data, err := n.requests.do(ctx, string(s.ID), n.member(s).Address, requestHead{Method: methodPoll}, body)
		var answer pollAnswer
		if err != nil || json.Unmarshal(data, &answer) != nil {
			return pollAnswer{}
		}
		if answer.Free || answer.Wait <= 0 || answer.Wait > n.cfg.Profile.Lease/timing.Requests {
			return answer
		}
		select {
		case <-ctx.Done():
			return answer
		case <-time.After(answer.Wait):
		}
	}
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
	wait := n.guard.leaseBinds(from)
	older := request.LastTerm < lastLogTerm(r) || request.LastTerm == lastLogTerm(r) && request.LastIndex < r.LastIndex()
	now := n.cfg.Now()
	to, until := n.guard.promised()
	same := request.LastTerm == lastLogTerm(r) && request.LastIndex == r.LastIndex()
	mine := same && now >= leaseOver(until) && n.maySucceed(to) && comesFirst(n.standing(), n.id, request.Fitness.bounded(), from)
	free := wait == 0 && !mine && r.State() == raft.Follower && !n.guard.voting() && r.CurrentTerm() <= request.Term && !older && n.guard.concede(from)
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
