package e2e_test

import (
	"testing"
	"time"
)

// TestMovesOf: what the probe takes for two owners, and what for one that came late to a
// request that had waited for it.
func TestMovesOf(t *testing.T) {
	const ms = time.Millisecond
	began := time.Now()
	take := func(director string, sent, after time.Duration) acceptance {
		return acceptance{director, began.Add(sent), began.Add(sent + after)}
	}
	for _, c := range []struct {
		name    string
		accepts []acceptance
		moves   int
		two     bool
	}{
		{"a move", []acceptance{take("d1", 0, ms), take("d1", 4*ms, ms), take("d2", 40*ms, ms), take("d2", 44*ms, ms)}, 1, false},
		{"two at the same moment", []acceptance{take("d1", 0, ms), take("d2", ms/10, ms)}, 1, true},
		{"the second had waited", []acceptance{take("d1", 0, ms), take("d2", ms/10, 30*ms), take("d2", 32*ms, ms)}, 1, false},
		{"one between two", []acceptance{take("d1", 0, ms), take("d2", 4*ms, ms), take("d1", 8*ms, ms)}, 2, true},
		{"the one between had waited", []acceptance{take("d1", 0, ms), take("d2", 4*ms, 30*ms), take("d1", 8*ms, ms), take("d2", 36*ms, ms)}, 3, false},
		{"two all the time", []acceptance{
			take("d1", 0, ms), take("d2", ms/10, ms), take("d1", 4*ms, ms), take("d2", 4*ms+ms/10, ms), take("d1", 8*ms, ms), take("d2", 8*ms+ms/10, ms),
		}, 5, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			gaps, overlap := movesOf(c.accepts)
			if len(gaps) != c.moves || (overlap > 0) != c.two {
				t.Errorf("%d moves, %d requests taken by two; want %d moves, two owners: %t", len(gaps), overlap, c.moves, c.two)
			}
		})
	}
}
