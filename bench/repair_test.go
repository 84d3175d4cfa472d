package bench

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// BenchmarkRepair reads all services and destinations, compares them with what is
// wanted, and sets those right that were changed. Raw reads, and sets as many.
func BenchmarkRepair(b *testing.B) { inFamilies(b, benchmarkRepair) }

func benchmarkRepair(b *testing.B, list []ipvs.Service) {
	want := ipvs.TableOf(list...)
	c, raw := dial(b), dialRaw(b)
	must(b, c.Flush(b.Context()))
	must(b, errors.Join(c.Apply(b.Context(), ipvs.Diff(ipvs.Table{}, want))...))
	defer func() { must(b, c.Flush(b.Context())) }()
	for _, drift := range []int{0, 1} {
		var spoil []ipvs.Change
		right := &buffers{raw: raw}
		for i := range drift * services * destinations / 100 {
			s := list[i*destinations%services]
			d := s.Destinations[i%destinations]
			right.add(setDest, destination(s.Key, d))
			d.Weight = 7
			spoil = append(spoil, ipvs.Change{Op: ipvs.SetDestination, Key: s.Key, Destination: &d})
		}
		if drift > 0 {
			right.end()
		}
		b.Run(fmt.Sprintf("drift=%d%%", drift), func(b *testing.B) {
			dump := whole(dumpRaw(list)(b))
			limit := func() error { return errors.Join(dump(), raw.load(right.done)) }
			measure(b, func() error { return errors.Join(c.Apply(b.Context(), spoil)...) }, limit, func() error {
				have, err := c.Table(b.Context())
				if err != nil {
					return err
				}
				changes := ipvs.Diff(have, want)
				if len(changes) != len(spoil) {
					return fmt.Errorf("%d changes, want %d", len(changes), len(spoil))
				}
				return errors.Join(c.Apply(b.Context(), changes)...)
			}, nothing)
		})
	}
}
