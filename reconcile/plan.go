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

// MakePlan compares a kernel's table with the wanted one; both must be bare. A
// service is ours when it is wanted, whoever made it, or recorded in owned; with
// exclusive, every service is. The lists are sorted.
//
// A service that is owned and not wanted is deleted even when have lacks it: a dump
// that others write beside misses services at times, and one that is forgotten here
// would stay in the kernel for ever.
func MakePlan(have, want ipvs.Table, owned map[ipvs.ServiceKey]bool, exclusive bool) Plan {
	var p Plan
	var ours []ipvs.Service
	for s := range have.Services() {
		if exclusive || owned[s.Key] || want.Service(s.Key) != nil {
			ours = append(ours, *s)
		} else {
			p.Foreign = append(p.Foreign, s.Key)
		}
	}
	if len(p.Foreign) > 0 {
		have = ipvs.TableOf(ours...)
	}
	p.Changes = ipvs.Diff(have, want)
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
	var before, after []ipvs.Service
	for a, b := range ipvs.Unshared(from, to) {
		if a != nil {
			before = append(before, a.Bare())
		}
		if b != nil {
			after = append(after, b.Bare())
		}
	}
	return ipvs.Diff(ipvs.TableOf(before...), ipvs.TableOf(after...))
}
