package reconcile

import (
	"maps"
	"slices"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Plan is what makes a kernel's table equal to a wanted one.
type Plan struct {
	Changes []ipvs.Change     // in the order in which they must be carried out
	Claim   []ipvs.ServiceKey // to be recorded as owned before the first change
	Foreign []ipvs.ServiceKey // in the kernel, left alone
}

// MakePlan compares a kernel's table with the wanted one; what a kernel does not hold
// does not count. A service is ours when it is wanted, whoever made it, or recorded in
// owned; with exclusive, every service is. The lists are sorted.
//
// A service that is owned and not wanted is deleted even when have lacks it: a dump
// that others write beside misses services at times, and one that is forgotten here
// would stay in the kernel for ever.
func MakePlan(have, want ipvs.Table, owned map[ipvs.ServiceKey]bool, exclusive bool) Plan {
	var p Plan
	p.Changes = differences(have, want, func(h, w *ipvs.Service) bool {
		foreign := w == nil && !exclusive && !owned[h.Key]
		if foreign {
			p.Foreign = append(p.Foreign, h.Key)
		}
		return foreign
	})
	for s := range want.Services() {
		if !owned[s.Key] {
			p.Claim = append(p.Claim, s.Key)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(owned), ipvs.ServiceKey.Compare) {
		if want.Service(k) == nil && have.Service(k) == nil {
			p.Changes = append(p.Changes, ipvs.Change{Op: ipvs.DeleteService, Key: k})
		}
	}
	return p
}

// changesBetween returns the changes that turn the bare form of one desired table
// into that of another. It looks only into services that are not one object in
// both.
func changesBetween(from, to ipvs.Table) []ipvs.Change {
	return differences(from, to, func(_, _ *ipvs.Service) bool { return false })
}

// differences returns the changes that turn the bare form of from into that of to, but
// for services that skip is true of; one of its arguments may be nil. Services that are
// alike, which mostly are all, are not copied.
func differences(from, to ipvs.Table, skip func(before, after *ipvs.Service) bool) []ipvs.Change {
	var before, after []ipvs.Service
	for a, b := range ipvs.Unshared(from, to) {
		if skip(a, b) || a != nil && b != nil && a.SameBare(b) {
			continue
		}
		if a != nil {
			before = append(before, a.Bare())
		}
		if b != nil {
			after = append(after, b.Bare())
		}
	}
	return ipvs.Diff(ipvs.TableOf(before...), ipvs.TableOf(after...))
}
