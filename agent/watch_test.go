package agent

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/vip"
)

const ms = time.Millisecond

// line is an event as the command line shows it.
func line(e api.Event) string {
	text := e.Kind + ": " + e.Cause
	if steps := e.StepsText(); steps != "" {
		text += ": " + steps
	}
	return text
}

func lines(events []api.Event) string {
	var all []string
	for _, e := range events {
		all = append(all, line(e))
		var sum int64
		for _, s := range e.Steps {
			sum += s.MS
		}
		if sum != e.TotalMS {
			all = append(all, "the steps do not add up")
		}
	}
	return strings.Join(all, "\n")
}

var (
	succession = cluster.Tenure{Term: 7, Rise: cluster.Succession, Former: "d1", Freed: 1000 * ms, Stood: 1003*ms + 900*time.Microsecond, Elected: 1015 * ms, Leased: 1016 * ms}
	given      = cluster.Tenure{Term: 7, Leased: 1016 * ms, Ended: 9000 * ms, Fall: cluster.Given, Heir: "d2", Why: "an operator asked for it"}
	unheard    = cluster.Tenure{Term: 7, Leased: 1016 * ms, Ended: 9000 * ms, Fall: cluster.Unheard, Silent: []string{"d2", "d3"}, Since: 8712 * ms}
	resumed    = cluster.Tenure{Term: 7, Rise: cluster.Resumption, Freed: 9000 * ms, Leased: 9100 * ms}
)

func TestRoleWatch(t *testing.T) {
	known := roleMoment{active: true, term: 7, at: 1020 * ms}
	type step struct {
		tell cluster.Tenure // Term 0: look only
		sight
		want string
	}
	tests := []struct {
		name  string
		watch roleWatch
		steps []step
	}{
		{"succession", roleWatch{keeps: true}, []step{
			{sight: sight{now: 900 * ms}},
			{tell: succession, sight: sight{now: 1017 * ms, role: roleMoment{active: true, term: 6, at: 5 * ms}}},
			{sight: sight{now: 1021 * ms, role: known}},
			{
				sight: sight{now: 1028*ms + 400*time.Microsecond, role: known, owner: true, held: 1},
				want:  "active: succeeded d1, whose lease ended; this node called the election: lease ended -> stood for election 3 ms -> elected 12 ms -> lease granted 1 ms -> daemons ready 4 ms -> VIPs up 8 ms",
			},
			{sight: sight{now: 1029 * ms, role: known, owner: true, held: 1}},
			{tell: given, sight: sight{now: 9000 * ms, role: known, owner: true, held: 1}},
			{sight: sight{now: 9004 * ms, role: known, held: 1}},
			{
				sight: sight{now: 9009 * ms, role: known},
				want:  "standby: gave its lease up for a transfer to d2: an operator asked for it: lease ended -> fence shut 4 ms -> VIPs gone 5 ms",
			},
			// The transfer came to nothing.
			{tell: resumed, sight: sight{now: 9100 * ms, role: known}},
			{
				sight: sight{now: 9105 * ms, role: known, owner: true, held: 1},
				want:  "active: the lease was granted again, and nobody else led meanwhile: lease ended -> lease granted 100 ms -> VIPs up 5 ms",
			},
		}},
		{"no VIPs here", roleWatch{}, []step{
			{tell: succession, sight: sight{now: 1017 * ms}},
			{sight: sight{now: 1021 * ms, role: known}, want: "active: succeeded d1, whose lease ended; this node called the election: lease ended -> stood for election 3 ms -> elected 12 ms -> lease granted 1 ms -> daemons ready 4 ms"},
			{tell: unheard, sight: sight{now: 9001 * ms}, want: "standby: lease not renewed: no answer from d2, d3 for 288 ms before its end"},
		}},
		{"lost before the VIPs were up", roleWatch{keeps: true}, []step{
			{tell: succession, sight: sight{now: 1017 * ms}},
			{tell: unheard, sight: sight{now: 9001 * ms}, want: "active: succeeded d1, whose lease ended; this node called the election; the VIPs are not up yet, see status: lease ended -> stood for election 3 ms -> elected 12 ms -> lease granted 1 ms\n" +
				"standby: lease not renewed: no answer from d2, d3 for 288 ms before its end: lease ended -> fence shut 1 ms -> VIPs gone 0 ms"},
		}},
		{"never up", roleWatch{keeps: true}, []step{
			{tell: succession, sight: sight{now: 1017 * ms, role: known}},
			{sight: sight{now: 1017*ms + changeLimit - 1, role: known}},
			{sight: sight{now: 1017*ms + changeLimit, role: known}, want: "active: succeeded d1, whose lease ended; this node called the election; the VIPs are not up yet, see status: lease ended -> stood for election 3 ms -> elected 12 ms -> lease granted 1 ms -> daemons ready 4 ms"},
		}},
		{"witness", roleWatch{witness: true}, []step{
			{tell: cluster.Tenure{Term: 2, Rise: cluster.Timers, Elected: 10 * ms, Leased: 12 * ms}, sight: sight{now: 12 * ms}, want: "leader: elected; no leader was known before: elected -> lease granted 2 ms"},
			{tell: cluster.Tenure{Term: 2, Leased: 12 * ms, Ended: 20 * ms, Fall: cluster.Given, Heir: "d1", Why: "w is a witness"}, sight: sight{now: 20 * ms}, want: "follower: gave its lease up for a transfer to d1: w is a witness"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i, s := range tt.steps {
				var got []api.Event
				if s.tell.Term != 0 {
					got = tt.watch.tell(s.tell, s.now)
				}
				got = append(got, tt.watch.look(s.sight)...)
				if text := lines(got); text != s.want {
					t.Errorf("step %d told\n%s\nwant\n%s", i, text, s.want)
				}
			}
		})
	}
}

func TestVIPWatch(t *testing.T) {
	var w vipWatch
	s := vip.Status{FenceRebuilt: 1}
	if got := lines(w.look(5*time.Second, s)); got != "fence-rebuilt: somebody removed the fence or a part of it; it was built anew" {
		t.Errorf("told %s", got)
	}
	s.AddressesRepaired, s.Repaired = 1, netip.MustParseAddr("10.9.0.100")
	s.ForeignAnnouncements, s.Foreign = 3, vip.Foreign{Address: s.Repaired, MAC: "02:00:00:00:00:09"}
	if got := lines(w.look(6*time.Second, s)); got != "address-restored: somebody removed the VIP 10.9.0.100; it was put back\n"+
		"foreign-announcement: 02:00:00:00:00:09 announced the VIP 10.9.0.100 as its own; it was announced again from here (the last of 3)" {
		t.Errorf("told %s", got)
	}
	for i := range 50 { // a storm
		s.ForeignAnnouncements++
		if got := w.look(6*time.Second+time.Duration(i)*time.Second, s); len(got) > 0 {
			t.Fatalf("after %d s told %s", i, lines(got))
		}
	}
	if wait := w.wait(56 * time.Second); wait != 10*time.Second {
		t.Errorf("waits %s", wait)
	}
	if got := lines(w.look(66*time.Second, s)); !strings.HasSuffix(got, "(the last of 50)") {
		t.Errorf("told %s", got)
	}
	if wait := w.wait(66 * time.Second); wait < time.Minute {
		t.Errorf("waits %s with nothing to tell", wait)
	}
}

func TestEventsAreBounded(t *testing.T) {
	e := events{node: "d1", log: slog.New(slog.DiscardHandler)}
	for range maxEvents + 10 {
		e.add(api.Event{Kind: "x", Cause: strings.Repeat("ä", maxCause)})
	}
	e.add(api.Event{Kind: "last"})
	got := e.newest(3)
	if len(e.list) != maxEvents || len(got) != 3 || got[2].Kind != "last" || got[2].Node != "d1" || len(got[0].Cause) > maxCause {
		t.Errorf("%d events, the newest %d: %+v", len(e.list), len(got), got[2])
	}
}
