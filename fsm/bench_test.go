package fsm

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// benchDocument returns services of ten destinations.
func benchDocument(destinations int) *ipvs.Document {
	doc := &ipvs.Document{}
	for i := range destinations / 10 {
		s := ipvs.Service{Key: key(i * 7), Scheduler: "wrr"}
		for d := range 10 {
			s.Destinations = append(s.Destinations, *destination(d, 1))
		}
		doc.Services = append(doc.Services, s)
	}
	return doc
}

// benchMachine returns a machine that holds them, and has answered enough writes to
// forget some.
func benchMachine(b *testing.B, destinations int) *Machine {
	b.Helper()
	table, err := benchDocument(destinations).Table()
	if err != nil {
		b.Fatal(err)
	}
	m := New(nil)
	s := State{table: table, revision: 1, index: 1}
	for i := range maxAnswers {
		a := answer{id: fmt.Sprintf("weight-%010d", 1_000_000_000+i), result: Result{Revision: 1, Index: 1}}
		s.answers = remember(s.answers, a)
		m.known[a.id] = a
	}
	m.publish(s)
	return m
}

func forSizes(b *testing.B, run func(b *testing.B, destinations int)) {
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("destinations=%d", n), func(b *testing.B) { run(b, n) })
	}
}

// BenchmarkApply measures the log entry of one weight change.
func BenchmarkApply(b *testing.B) {
	forSizes(b, func(b *testing.B, n int) {
		m := benchMachine(b, n)
		var logs [2][]byte
		for i := range logs {
			logs[i] = encode(b, edit("weight-0000000000", ipvs.Change{Op: ipvs.SetDestination, Key: key(7), Destination: destination(3, int32(i))}))
		}
		b.ReportAllocs()
		index := uint64(1)
		for b.Loop() {
			index++
			data := bytes.Replace(logs[index%2], []byte("0000000000"), fmt.Appendf(nil, "%010d", index), 1)
			m.Apply(&raft.Log{Type: raft.LogCommand, Index: index, Data: data})
		}
		if m.State().Revision() < index {
			b.Fatalf("revision %d, want %d", m.State().Revision(), index)
		}
	})
}

// BenchmarkSnapshot measures the capture, which stops the log, and what runs beside
// it.
func BenchmarkSnapshot(b *testing.B) {
	b.Run("capture", func(b *testing.B) {
		forSizes(b, func(b *testing.B, n int) {
			m := benchMachine(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Snapshot(); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("persist", func(b *testing.B) {
		forSizes(b, func(b *testing.B, n int) {
			m := benchMachine(b, n)
			var size int
			b.ReportAllocs()
			for b.Loop() {
				count := counter{w: io.Discard}
				if err := writeSnapshot(&count, m.State()); err != nil {
					b.Fatal(err)
				}
				size = count.n
			}
			b.ReportMetric(float64(size), "snapshot-bytes")
			reportPerObject(b, m.State())
		})
	})
	b.Run("restore", func(b *testing.B) {
		forSizes(b, func(b *testing.B, n int) {
			m := benchMachine(b, n)
			var written bytes.Buffer
			if err := writeSnapshot(&written, m.State()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := New(nil).Restore(io.NopCloser(bytes.NewReader(written.Bytes()))); err != nil {
					b.Fatal(err)
				}
			}
			reportPerObject(b, m.State())
		})
	})
}

// reportPerObject divides by all that a snapshot has a part for: a small table is
// outnumbered by the answers.
func reportPerObject(b *testing.B, s State) {
	b.Helper()
	objects := s.table.Len() + s.table.Destinations() + len(s.answers)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(objects), "ns/object")
}

type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += len(b)
	return c.w.Write(b)
}
