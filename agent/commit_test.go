package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/fsm"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// log is a replicated log without a cluster. Proposals and answers get lost as fate
// says.
type log struct {
	machine *fsm.Machine
	index   uint64
	fate    func() string
}

func (l *log) propose(_ context.Context, entry []byte) (uint64, fsm.Result, error) {
	fate := l.fate()
	switch fate {
	case "no leader":
		return 0, fsm.Result{}, fmt.Errorf("propose: %w", cluster.ErrNoLeader)
	case "lost":
		return 0, fsm.Result{}, fmt.Errorf("propose: %w", cluster.ErrUnknown)
	}
	l.index++
	answer := l.machine.Apply(&raft.Log{Type: raft.LogCommand, Index: l.index, Data: entry}).([]byte)
	result, err := fsm.DecodeResult(answer)
	switch {
	case fate == "answer lost":
		return 0, fsm.Result{}, fmt.Errorf("propose: %w", cluster.ErrUnknown)
	case err == nil && result.Rejected != nil:
		err = result.Rejected
	}
	return l.index, result, err
}

const services = 4500

// largeEntries are the entries of a table that needs three parts.
func largeEntries(t interface{ Fatal(...any) }, id string, revision *uint64) [][]byte {
	doc := &ipvs.Document{}
	for i := range services {
		doc.Services = append(doc.Services, ipvs.Service{Key: ipvs.ServiceMarked(ipvs.IPv4, uint32(i+1)), Scheduler: "wrr", Comment: fmt.Sprintf("%064d", i)})
	}
	entries, err := fsm.Command{ID: id, IfRevision: revision, Replace: doc}.Entries()
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 {
		t.Fatal("not three parts and a commit: ", len(entries))
	}
	return entries
}

// TestPartsGetLost: whatever gets lost, the table comes, once.
func TestPartsGetLost(t *testing.T) {
	entries := largeEntries(t, "a", nil)
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			l := &log{machine: fsm.New(nil), fate: func() string {
				return []string{"", "", "", "no leader", "lost", "answer lost"}[random.IntN(6)]
			}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_, result, err := commitParts(ctx, entries, false, l.propose)
			if err != nil || l.machine.State().Table().Len() != services || l.machine.State().Revision() != result.Revision {
				t.Fatalf("seed %d: %+v, %v", seed, result, err)
			}
		})
	}
}

func TestPartsOutcome(t *testing.T) {
	entries, stale := largeEntries(t, "a", nil), uint64(7)
	last := len(entries) - 1
	for _, tt := range []struct {
		name    string
		entries [][]byte
		fate    func(n int) string // of the nth proposal
		is      error
		not     error
	}{
		{"no leader for ever", entries, func(int) string { return "no leader" }, cluster.ErrNoLeader, cluster.ErrUnknown},
		{"parts get lost for ever", entries, func(int) string { return "lost" }, cluster.ErrNoLeader, cluster.ErrUnknown},
		{"the commit gets lost for ever", entries, func(n int) string {
			if n < last {
				return ""
			}
			return "lost"
		}, cluster.ErrUnknown, cluster.ErrNoLeader},
		{"an old revision", largeEntries(t, "a", &stale), func(int) string { return "" }, fsm.ErrConflict, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				l := &log{machine: fsm.New(nil), fate: func() string { n++; return tt.fate(n - 1) }}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, _, err := commitParts(ctx, tt.entries, false, l.propose)
				if !errors.Is(err, tt.is) || tt.not != nil && errors.Is(err, tt.not) {
					t.Errorf("error %v, want one that matches %v and not %v", err, tt.is, tt.not)
				}
				if l.machine.State().Revision() != 0 {
					t.Error("the table has changed")
				}
			})
		})
	}
}

// TestPartsPushedOut: other large writes take the room, a few times or always.
func TestPartsPushedOut(t *testing.T) {
	entries := largeEntries(t, "a", nil)
	var others [][]byte
	for i := range 4 {
		others = append(others, largeEntries(t, fmt.Sprint(i), nil)[0])
	}
	for _, times := range []int{maxRestages, maxRestages + 1} {
		l := &log{machine: fsm.New(nil), fate: func() string { return "" }}
		pushed := 0
		_, _, err := commitParts(t.Context(), entries, false, func(ctx context.Context, entry []byte) (uint64, fsm.Result, error) {
			if len(entry) < 1000 && pushed < times { // the commit
				pushed++
				for _, other := range others {
					if _, _, err := l.propose(ctx, other); err != nil {
						t.Fatal(err)
					}
				}
			}
			return l.propose(ctx, entry)
		})
		if times > maxRestages != errors.Is(err, fsm.ErrNotStaged) || times <= maxRestages && err != nil {
			t.Errorf("pushed out %d times: %v", times, err)
		}
	}
}
