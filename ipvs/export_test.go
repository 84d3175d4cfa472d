package ipvs

import "errors"

// CheckCounts reports where what t keeps about all of its services is not what they
// say.
func CheckCounts(t Table) error {
	var whole counts
	for s := range t.Services() {
		whole.add(s, 1)
	}
	if whole != t.counts {
		return errors.New("the counts are not those of the services")
	}
	return nil
}

// Sortable is the form of k by which a table is ordered.
func Sortable(k ServiceKey) []byte { return k.sortable(nil) }
