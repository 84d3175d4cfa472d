package fsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// sink is a raft.SnapshotSink in memory.
type sink struct {
	bytes.Buffer
	closed, cancelled bool
	limit             int // bytes before writing fails; 0 = none
}

func (s *sink) ID() string    { return "test" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func (s *sink) Write(b []byte) (int, error) {
	if s.limit > 0 && s.Len()+len(b) > s.limit {
		return 0, errors.New("disk full")
	}
	return s.Buffer.Write(b)
}

func drawCommand(t *rapid.T) []byte {
	if rapid.IntRange(0, 19).Draw(t, "garbage") == 0 {
		return rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")
	}
	c := Command{ID: fmt.Sprint("w", rapid.IntRange(0, 60).Draw(t, "id"))}
	if rapid.IntRange(0, 9).Draw(t, "conditional") == 0 {
		c.IfRevision = rapid.Ptr(rapid.Uint64Range(0, 30), false).Draw(t, "revision")
	}
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		c.Replace = &ipvs.Document{}
		for n := range rapid.IntRange(0, 4).Draw(t, "services") {
			c.Replace.Services = append(c.Replace.Services, ipvs.Service{Key: key(n), Scheduler: "wrr", Destinations: []ipvs.Destination{*destination(n, 1)}})
		}
	case 1:
		drained := rapid.Bool().Draw(t, "drained")
		preference := rapid.IntRange(0, MaxPreference).Draw(t, "preference")
		c.Directors = []DirectorSetting{{Node: fmt.Sprint("d", rapid.IntRange(1, 3).Draw(t, "director")), Drained: &drained, Preference: &preference}}
	default:
		c.Changes = rapid.SliceOfN(rapid.Custom(drawChange), 1, 4).Draw(t, "changes")
	}
	data, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func drawChange(t *rapid.T) ipvs.Change {
	n := rapid.IntRange(1, 8).Draw(t, "service")
	d := destination(rapid.IntRange(1, 4).Draw(t, "destination"), rapid.Int32Range(-1, 3).Draw(t, "weight"))
	return rapid.SampledFrom([]ipvs.Change{
		addService(n, "rr"),
		{Op: ipvs.SetService, Key: key(n), Service: &ipvs.Service{Key: key(n), Scheduler: "wlc", Name: "x", NoVIP: key(n).FWMark == 0}},
		{Op: ipvs.DeleteService, Key: key(n)},
		{Op: ipvs.AddDestination, Key: key(n), Destination: d},
		{Op: ipvs.SetDestination, Key: key(n), Destination: d},
		{Op: ipvs.DeleteDestination, Key: key(n), Address: d.Addr},
		{Op: ipvs.SetSync, Sync: &ipvs.Sync{ID: n}},
		{Op: ipvs.SetTimeouts, Timeouts: &ipvs.Timeouts{UDP: ipvs.Seconds(n)}},
		{Op: ipvs.SetVIPs, VIPs: &ipvs.VIPs{Listed: n%2 == 0}},
	}).Draw(t, "change")
}

// TestReplicasAgree runs the same log on three replicas, of which one gets it in
// batches and all restore snapshots of one another at random.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := rapid.SliceOfN(rapid.Custom(drawCommand), 1, 40).Draw(t, "log")
		replicas := []*Machine{New(nil), New(nil), New(nil)}
		var batch []*raft.Log
		for i, data := range log {
			entry := &raft.Log{Type: raft.LogCommand, Index: uint64(2*i + 1), Data: data}
			first, second := replicas[0].Apply(entry).([]byte), replicas[1].Apply(entry).([]byte)
			if !bytes.Equal(first, second) {
				t.Fatalf("entry %d: %s and %s", i, first, second)
			}
			batch = append(batch, entry, &raft.Log{Type: raft.LogConfiguration, Index: uint64(2*i + 2)})
			if rapid.Bool().Draw(t, "flush") || i == len(log)-1 {
				if responses := replicas[2].ApplyBatch(batch); len(responses) != len(batch) || !bytes.Equal(responses[len(batch)-2].([]byte), first) {
					t.Fatalf("entry %d: the batch answered %q, want %s", i, responses, first)
				}
				batch = nil
				if rapid.IntRange(0, 4).Draw(t, "restore") == 0 {
					from, to := rapid.IntRange(0, 2).Draw(t, "from"), rapid.IntRange(0, 2).Draw(t, "to")
					copyState(t, replicas[from], replicas[to])
				}
			}
		}
		for i, r := range replicas {
			if r.State().Hash() != replicas[0].State().Hash() {
				t.Fatalf("replica %d differs: %v, want %v", i, r.State().Table().Document(), replicas[0].State().Table().Document())
			}
		}
	})
}

func copyState(t *rapid.T, from, to *Machine) {
	s, err := from.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var written sink
	if err := s.Persist(&written); err != nil || !written.closed {
		t.Fatalf("persist: %v, closed %v", err, written.closed)
	}
	if err := to.Restore(io.NopCloser(&written)); err != nil {
		t.Fatal(err)
	}
}

func TestPersistReportsAFullDisk(t *testing.T) {
	m := New(nil)
	apply(t, m, 1, encode(t, edit("a", addService(1, "rr"))))
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	full := sink{limit: 20}
	if err := s.Persist(&full); err == nil || !full.cancelled || full.closed {
		t.Errorf("error %v, cancelled %v, closed %v", err, full.cancelled, full.closed)
	}
}

func TestPersistBesideApply(t *testing.T) {
	m := New(nil)
	var persisting sync.WaitGroup
	for i := range 200 {
		apply(t, m, uint64(i+1), encode(t, edit(fmt.Sprint(i), addService(i+1, "rr"))))
		if i%20 == 0 {
			s, err := m.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			persisting.Go(func() {
				var written sink
				if err := s.Persist(&written); err != nil {
					t.Error(err)
				}
				if _, err := readSnapshot(&written); err != nil {
					t.Error(err)
				}
			})
		}
	}
	persisting.Wait()
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		m := New(func() { calls++ })
		done := make(chan error, 10)
		for i := range 10 {
			go func() { done <- m.Wait(t.Context(), uint64(i)) }()
		}
		synctest.Wait()
		if len(done) != 1 {
			t.Fatalf("%d waiters returned at index 0, want 1", len(done))
		}
		apply(t, m, 5, []byte("even a rejected command advances"))
		synctest.Wait()
		if len(done) != 6 {
			t.Fatalf("%d waiters returned at index 5, want 6", len(done))
		}
		ahead := New(nil)
		apply(t, ahead, 20, encode(t, edit("a", addService(1, "rr"))))
		s, _ := ahead.Snapshot()
		var written sink
		if err := s.Persist(&written); err != nil {
			t.Fatal(err)
		}
		if err := m.Restore(io.NopCloser(&written)); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if calls != 2 {
			t.Errorf("onApply was called %d times, want 2", calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Wait(ctx, 21); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "applied 20") {
			t.Errorf("waiting beyond the end: %v", err)
		}
	})
}

func TestAPanicIsARejection(t *testing.T) {
	m := New(nil)
	m.known = nil // makes remembering panic
	r := apply(t, m, 7, encode(t, edit("a", addService(1, "rr"))))
	if r.Rejected == nil || r.Index != 7 || m.State().Index() != 7 || m.State().Table().Len() != 0 {
		t.Errorf("%+v, state index %d", r, m.State().Index())
	}
}

func FuzzApply(f *testing.F) {
	for _, c := range []Command{edit("a", everyKind()...), {ID: "b", Replace: &ipvs.Document{}}} {
		data, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"v":1,"id":"a","changes":[{"op":"set-service","key":"tcp://10.9.0.1:80"}]}`))
	f.Add([]byte(`{"v":1,"id":"a","changes":[{"op":"add-destination"},{"op":"set-sync"},null]}`))
	f.Add([]byte(`{"v":2}`))
	base, _ := State{}.apply(1, encode(f, edit("base", everyKind()...)), nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, r := base.apply(2, data, nil) // without the recover of Machine
		if r.Rejected != nil && s.revision != base.revision {
			t.Fatalf("a rejected command changed the table")
		}
		if c, err := DecodeCommand(data); err == nil {
			if _, err := c.Encode(); err != nil {
				t.Fatalf("decoded, but does not encode: %v", err)
			}
			if (base.Check(c) == nil) != (r.Rejected == nil) && c.ID != "base" {
				t.Fatalf("Check says %v, the answer is %v", base.Check(c), r.Rejected)
			}
		}
		var written bytes.Buffer
		if err := writeSnapshot(&written, s); err != nil {
			t.Fatal(err)
		}
		back, err := readSnapshot(&written)
		if err != nil || back.Hash() != s.Hash() {
			t.Fatalf("the snapshot does not come back: %v", err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	var written bytes.Buffer
	s, _ := State{}.apply(1, encode(f, edit("base", everyKind()...)), nil)
	if err := writeSnapshot(&written, s); err != nil {
		f.Fatal(err)
	}
	f.Add(written.Bytes())
	f.Add([]byte(`{"v":1,"services":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New(nil)
		if err := m.Restore(io.NopCloser(bytes.NewReader(data))); err != nil && m.State().Index() != 0 {
			t.Fatalf("refused with %v, but restored", err)
		}
	})
}
