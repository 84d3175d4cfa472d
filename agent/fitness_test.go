package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/fault"
	"github.com/ipvs-ha/ipvs-ha/fsm"
	"github.com/ipvs-ha/ipvs-ha/reconcile"
	"github.com/ipvs-ha/ipvs-ha/track"
)

func TestFitness(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	lasting := func(d time.Duration) time.Time { return now.Add(-d) }
	refused := func(object string, d time.Duration) func(h *health) {
		return func(h *health) {
			h.kernel.Errors = append(h.kernel.Errors, fault.Fault{Object: object, Message: "no module", Since: lasting(d)})
		}
	}
	untaken := func(object string, d time.Duration) func(h *health) {
		return func(h *health) {
			h.vips.Errors = append(h.vips.Errors, fault.Fault{Object: object, Message: "not allowed", Since: lasting(d)})
		}
	}
	active := func(h *health) { h.active = true }
	drain := func(h *health) { h.set.Drained = true }
	cool := func(h *health) { h.warm = false }
	for _, tt := range []struct {
		name  string
		ill   []func(*health)
		class int
		says  string // all reasons
	}{
		{"well", nil, 0, ""},
		{"cold", []func(*health){cool}, cold, "it has not had time to learn the connections since it started or was cut off"},
		{"an active one is warm", []func(*health){cool, active}, 0, ""},
		{"drained", []func(*health){drain}, drained, "drained by the operator"},
		{"a drained active one", []func(*health){drain, active}, drained, "drained by the operator"},
		{"refused service", []func(*health){refused("tcp://10.9.0.1:80", time.Second)}, incomplete, "its kernel refuses tcp://10.9.0.1:80: no module"},
		{"two refused", []func(*health){refused("tcp://10.9.0.1:80", time.Hour), refused("timeouts", time.Hour)}, incomplete, "its kernel refuses tcp://10.9.0.1:80: no module (and 1 more)"},
		{"refused a moment ago", []func(*health){refused("tcp://10.9.0.1:80", time.Second/2)}, 0, ""},
		{"the active one has more time", []func(*health){active, refused("tcp://10.9.0.1:80", 2*time.Second)}, 0, ""},
		{"but not for ever", []func(*health){active, refused("tcp://10.9.0.1:80", 3*time.Second)}, incomplete, "its kernel refuses tcp://10.9.0.1:80: no module"},
		{"not yet converged", []func(*health){func(h *health) { h.kernel.Converged = false }}, 0, ""},
		{"unreadable kernel", []func(*health){refused("table", time.Second)}, useless, "its kernel cannot be programmed: no module"},
		{"kernel not read yet", []func(*health){func(h *health) { h.kernel.LastFull = time.Time{} }}, useless, "its kernel has not been programmed yet"},
		{"not caught up", []func(*health){func(h *health) { h.caughtUp = false }}, useless, "it has not caught up with the cluster since it started"},
		{"sync daemon", []func(*health){refused("sync daemons", time.Second)}, cutOff, "connections are not synchronised: no module"},
		{"tracked", []func(*health){func(h *health) {
			h.troubles = []track.Trouble{{Message: "gateway 10.9.0.1 does not answer", Since: lasting(0)}}
		}}, cutOff, "gateway 10.9.0.1 does not answer"},
		{"a tracked interface of the active one", []func(*health){active, func(h *health) {
			h.troubles = []track.Trouble{{Message: "interface eth1 has no carrier", Since: lasting(0)}}
		}}, cutOff, "interface eth1 has no carrier"},
		{"a gateway of the active one, a moment ago", []func(*health){active, func(h *health) {
			h.troubles = []track.Trouble{{Message: "gateway 10.9.0.1 does not answer", Since: lasting(time.Second), Shared: true}}
		}}, 0, ""},
		{"VIP not allowed", []func(*health){untaken("10.9.0.100/32@eth0", time.Second)}, homeless, "vip 10.9.0.100/32@eth0: not allowed"},
		{"VIP not in the record yet", []func(*health){untaken("10.9.0.100/32@eth0", time.Second/10)}, 0, ""},
		{"no fence", []func(*health){untaken("fence", time.Second)}, homeless, "vip fence: not allowed"},
		{"announcements", []func(*health){untaken("announcements", time.Hour)}, 0, ""},
		{"VIP without interface", []func(*health){func(h *health) {
			h.unmapped, h.mapped = []api.ObjectError{{Object: "vip 10.1.0.1/24", Message: "no network inside"}}, lasting(time.Second)
		}}, homeless, "vip 10.1.0.1/24: no network inside"},
		{"link of VIPs down", []func(*health){untaken("10.9.0.100/32@eth0", time.Hour), func(h *health) { h.vips.Down = []string{"eth0"} }}, linkless, "the interface of VIPs is down: eth0"},
		{
			"all at once",
			[]func(*health){cool, drain, refused("tcp://10.9.0.1:80", time.Hour), func(h *health) { h.vips.Down = []string{"eth0"} }},
			linkless | incomplete | drained | cold,
			"the interface of VIPs is down: eth0; its kernel refuses tcp://10.9.0.1:80: no module; drained by the operator; it has not had time to learn the connections since it started or was cut off",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := health{
				now: now, caughtUp: true, warm: true, set: fsm.Director{Node: "d1", Preference: 60},
				kernel: reconcile.Status{LastFull: lasting(time.Minute), Converged: true},
			}
			for _, spoil := range tt.ill {
				spoil(&h)
			}
			f := h.fitness()
			if got := strings.Join(f.Reasons, "; "); f.Class != tt.class || got != tt.says || f.Preference != 60 {
				t.Errorf("class %d, preference %d: %s\nwant %d: %s", f.Class, f.Preference, got, tt.class, tt.says)
			}
			if f.Class > 127 {
				t.Errorf("class %d is beyond the cluster's limit", f.Class)
			}
		})
	}
}

// TestTheWorstCountsFirst: each trouble is worse than all lesser ones together.
func TestTheWorstCountsFirst(t *testing.T) {
	sum := 0
	for _, class := range []int{cold, drained, incomplete, homeless, cutOff, linkless, useless} {
		if class <= sum {
			t.Errorf("class %d is not above %d", class, sum)
		}
		sum += class
	}
}
