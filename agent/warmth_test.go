package agent

import (
	"testing"
	"time"
)

func TestWarmth(t *testing.T) {
	type look struct {
		at     time.Duration
		hears  bool
		active bool
		want   bool
	}
	const s = time.Second
	hearing := func(from, to time.Duration, warmAt time.Duration) (looks []look) {
		for at := from; at <= to; at += listenEvery {
			looks = append(looks, look{at: at, hears: true, want: at >= warmAt})
		}
		return looks
	}
	for name, looks := range map[string][]look{
		"it has started":          append([]look{{at: 10 * s}}, hearing(11*s, 30*s, 18*s)...),
		"it hears from the first": hearing(10*s, 30*s, 17*s),
		"a moment without a leader": append(append(hearing(10*s, 20*s, 17*s),
			look{at: 21 * s, want: true}, look{at: 23 * s, want: true}), hearing(23*s, 30*s, 0)...),
		"a moment while it warms up": append(append(hearing(10*s, 12*s, 17*s),
			look{at: 14 * s}), hearing(15*s, 30*s, 17*s)...),
		"cut off": append(append(hearing(10*s, 20*s, 17*s),
			look{at: 23 * s, want: true}, look{at: 23*s + 1}, look{at: 60 * s}), hearing(70*s, 90*s, 77*s)...),
		"its process was stopped": append(hearing(10*s, 20*s, 17*s), hearing(40*s, 60*s, 47*s)...),
		"it is the active one":    {{at: 10 * s, active: true, want: true}, {at: 10*s + 1, want: true}, {at: 12 * s, hears: true, want: true}},
		"it was, and was cut off": {{at: 10 * s, active: true, want: true}, {at: 14 * s}, {at: 15 * s, hears: true}},
	} {
		t.Run(name, func(t *testing.T) {
			var w warmth
			for _, l := range looks {
				if got := w.look(l.at, l.hears, l.active); got != l.want {
					t.Errorf("after %v, hears %t, active %t: warm %t", l.at, l.hears, l.active, got)
				}
			}
		})
	}
}
