package agent_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
)

// largeDocument has services of ten destinations.
func largeDocument(destinations int, weight int32) *ipvs.Document {
	doc := &ipvs.Document{}
	for i := range destinations / 10 {
		s := ipvs.Service{Scheduler: "wrr", Key: ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 80))}
		for d := range 10 {
			s.Destinations = append(s.Destinations, ipvs.Destination{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(i), byte(d)}), 8080), Forward: ipvs.Masq, Weight: weight})
		}
		doc.Services = append(doc.Services, s)
	}
	return doc
}

// TestLargeApplyWhileTheLeaderChanges applies 100,000 destinations through a
// follower until leadership has moved meanwhile. Each reader sees the table before or
// the one after, whole.
func TestLargeApplyWhileTheLeaderChanges(t *testing.T) {
	nodes := start(t, memkernel.New(), memkernel.New(), memkernel.New())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var before, after ipvs.Table
	read := func(n *node) (applied bool, revision uint64) {
		t.Helper()
		view, err := n.client.Table(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		if !view.Table.Equal(before) && !view.Table.Equal(after) {
			t.Fatalf("%s holds what nobody has applied: %d services and %d destinations", n.name, view.Table.Len(), view.Table.Destinations())
		}
		return view.Table.Equal(after), view.Revision
	}
	status, err := nodes[0].client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	follower := nodes[0]
	if status.Leader == follower.name {
		follower = nodes[1]
	}
	var doc *ipvs.Document
	var write api.Write
	for weight, moves := int32(1), 0; moves == 0; weight++ {
		if weight == 10 {
			t.Fatal("leadership never moved while a table was applied")
		}
		doc = largeDocument(100_000, weight)
		before = after
		if after, err = doc.Table(); err != nil {
			t.Fatal(err)
		}
		write = api.Write{ID: api.NewID(), Replace: doc, Wait: api.WaitNone}
		began, written := time.Now(), make(chan error, 1)
		go func() {
			_, err := follower.client.Write(ctx, write)
			written <- err
		}()
		for len(written) == 0 && moves < 2 {
			if follower.client.Transfer(ctx, "") == nil && len(written) == 0 {
				moves++
				read(nodes[2])
			}
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		t.Logf("an apply took %v, with %d transfers", time.Since(began), moves)
	}
	var revision uint64
	for i, n := range nodes {
		applied, r := read(n)
		if !applied || i > 0 && r != revision {
			t.Errorf("%s holds the new table: %v, at revision %d, want %d", n.name, applied, r, revision)
		}
		revision = r
	}
	if again, err := nodes[2].client.Write(ctx, write); err != nil || !again.Repeated || again.Revision != revision {
		t.Errorf("the same write again: %+v, %v", again, err)
	}
	changes := []ipvs.Change{{Op: ipvs.SetDestination, Key: doc.Services[7].Key, Destination: &largeDocument(80, 9).Services[7].Destinations[3]}}
	began := time.Now()
	if _, err := follower.client.Write(ctx, api.Write{Changes: changes, Wait: api.WaitNone}); err != nil {
		t.Fatal(err)
	}
	t.Logf("one change took %v", time.Since(began))
	large := api.Write{Replace: nil, Wait: api.WaitNone}
	for _, s := range doc.Services[:400] {
		for _, d := range s.Destinations {
			large.Changes = append(large.Changes, ipvs.Change{Op: ipvs.SetDestination, Key: s.Key, Destination: &d})
		}
	}
	if _, err := follower.client.Write(ctx, large); api.KindOf(err) != api.TooLarge {
		t.Errorf("%d changes at once: %v, want one that is too large", len(large.Changes), err)
	}
}

// BenchmarkOneChange measures what the command line does for "destination set" and
// "service set": it reads the service and writes it, until it is in every kernel.
func BenchmarkOneChange(b *testing.B) {
	for _, destinations := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("destinations=%d", destinations), func(b *testing.B) {
			doc := largeDocument(destinations, 1)
			client := start(b, memkernel.New(), memkernel.New(), memkernel.New())[0].client
			ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
			defer cancel()
			if written, err := client.Write(ctx, api.Write{Replace: doc}); err != nil || len(written.Pending) > 0 {
				b.Fatal(written.Pending, err)
			}
			for _, op := range []ipvs.Op{ipvs.SetDestination, ipvs.SetService} {
				b.Run(string(op), func(b *testing.B) {
					b.ReportAllocs()
					for weight := int32(2); b.Loop(); weight++ {
						setOne(ctx, b, client, op, doc.Services[77].Key, weight)
					}
				})
			}
		})
	}
}

// setOne makes one edit of a service that has destinations.
func setOne(ctx context.Context, b *testing.B, client *api.Client, op ipvs.Op, key ipvs.ServiceKey, weight int32) {
	s, revision, err := client.Service(ctx, key)
	if err != nil {
		b.Fatal(err)
	}
	change := ipvs.Change{Op: op, Key: key}
	if op == ipvs.SetDestination {
		change.Destination = &s.Destinations[3]
		change.Destination.Weight = weight
	} else {
		change.Service = &s
		s.Destinations, s.Persistence.Timeout = nil, ipvs.Seconds(weight)
	}
	written, err := client.Write(ctx, api.Write{IfRevision: &revision, Changes: []ipvs.Change{change}})
	if err != nil || len(written.Pending) > 0 {
		b.Fatal(written.Pending, err)
	}
}
