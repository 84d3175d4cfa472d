package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/boottime"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/vip"
)

const (
	// changeLimit is how long a change of role is waited for before it is told
	// unfinished.
	changeLimit = 10 * time.Second
	// repeatLimit is the shortest time between two events of a kind that somebody else
	// on the segment or the host can cause as often as they like.
	repeatLimit = time.Minute
)

// A roleMoment is since when this node's sync daemons are, or are not, those of the
// active director. It is never written to again.
type roleMoment struct {
	active bool
	term   uint64
	at     time.Duration // since boot
}

// noteRole notes whether this node's daemons are those of the active director. Of
// follow alone.
func (a *Agent) noteRole(active bool, term uint64) {
	if was := a.roleSince.Load(); was != nil && was.active == active && was.term == term {
		return
	}
	a.roleSince.Store(&roleMoment{active, term, boottime.Now()})
	select {
	case a.roleNoted <- struct{}{}:
	default:
	}
}

// noteHold tells that this node begins or ceases to hold the lease without a quorum.
func (a *Agent) noteHold(holds bool) {
	if holds {
		a.events.add(api.Event{Kind: eventHolding, Cause: "the other voter cannot be reached; this node keeps the lease without a quorum, as on_quorum_loss: hold says"})
	} else {
		a.events.add(api.Event{Kind: eventQuorum, Cause: "this node does not keep the lease without a quorum any more"})
	}
}

// onTenure is told by the cluster how this node came to lead, and how that ended.
func (a *Agent) onTenure(t cluster.Tenure) {
	select {
	case a.tenures <- t:
	default: // watch is stuck; it tells what is, with the next
	}
}

// watch turns what happens to this node's role and VIPs into events. It ends with
// ended, so that it sees how a node that stops gives its role away.
func (a *Agent) watch(ctx context.Context, ended <-chan struct{}) error {
	a.events.add(api.Event{Kind: eventStarted, Cause: "the agent was started"})
	roles := roleWatch{witness: a.cfg.Role == configs.Witness, keeps: a.keeper != nil}
	var vips vipWatch
	stopping := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var changed <-chan struct{}
		var s vip.Status
		if a.keeper != nil {
			changed, s = a.keeper.Changed(), a.keeper.Status()
		}
		now := boottime.Now()
		seen := sight{now: now, owner: s.Owner, held: s.HeldCount}
		if r := a.roleSince.Load(); r != nil {
			seen.role = *r
		}
		for _, e := range slices.Concat(roles.look(seen), vips.look(now, s)) {
			a.events.add(e)
		}
		timer.Reset(min(roles.wait(now), vips.wait(now)))
		select {
		case t := <-a.tenures:
			for _, e := range roles.tell(t, boottime.Now()) {
				a.events.add(e)
			}
		case <-stopping:
			stopping = nil
			a.events.add(api.Event{Kind: eventStopping, Cause: "the agent was asked to stop, or a part of it failed"})
		case <-ended:
			for len(a.tenures) > 0 {
				for _, e := range roles.tell(<-a.tenures, boottime.Now()) {
					a.events.add(e)
				}
			}
			for _, e := range roles.finish(boottime.Now()) {
				a.events.add(e)
			}
			return nil
		case <-changed:
		case <-a.roleNoted:
		case <-timer.C:
		}
	}
}

// A sight is what there is to be seen of this node's role.
type sight struct {
	now   time.Duration // since boot
	role  roleMoment
	owner bool // VIPs are answered for
	held  int  // addresses on the host
}

// A roleWatch follows one tenure after the other and tells of each when this node has
// become active, and when it is standby again.
type roleWatch struct {
	witness bool
	keeps   bool // this node takes VIPs

	tenure  cluster.Tenure
	phase   phase
	ready   time.Duration // the steps that the cluster does not see; 0 = not yet
	up      time.Duration
	shut    time.Duration
	gone    time.Duration
	dueLate time.Duration // when the phase is told unfinished
}

type phase int

const (
	resting phase = iota // all is told
	rising
	falling
)

// tell takes the newest word of a tenure. What was not told of the one before is told
// as far as it came.
func (w *roleWatch) tell(t cluster.Tenure, now time.Duration) (told []api.Event) {
	began := w.tenure.Term != t.Term || w.tenure.Leased != t.Leased
	if began || w.phase == rising {
		told = w.finish(now)
	}
	if began {
		w.ready, w.up = 0, 0
	}
	w.tenure, w.phase, w.dueLate = t, rising, now+changeLimit
	if t.Ended != 0 {
		w.phase, w.shut, w.gone = falling, 0, 0
	}
	return told
}

// look notes the steps that are done, and tells what is complete.
func (w *roleWatch) look(s sight) []api.Event {
	done := false
	switch w.phase {
	case resting:
		return nil
	case rising:
		if w.ready == 0 && s.role.active && s.role.term == w.tenure.Term {
			w.ready = s.role.at
		}
		if w.up == 0 && s.owner {
			w.up = s.now
		}
		done = w.witness || w.ready != 0 && (!w.keeps || w.up != 0)
	case falling:
		if w.shut == 0 && !s.owner {
			w.shut = s.now
		}
		if w.gone == 0 && !s.owner && s.held == 0 {
			w.gone = s.now
		}
		done = !w.keeps || w.gone != 0
	}
	if done || s.now >= w.dueLate {
		return w.finish(s.now)
	}
	return nil
}

// wait returns how long there is nothing to do by itself.
func (w *roleWatch) wait(now time.Duration) time.Duration {
	if w.phase == resting {
		return time.Hour
	}
	return max(w.dueLate-now, 0)
}

// finish tells the phase, as far as it came.
func (w *roleWatch) finish(now time.Duration) []api.Event {
	t := w.tenure
	event := api.Event{Term: t.Term}
	switch w.phase {
	case rising:
		event.Kind, event.Cause = eventActive, riseCause(t)
		if w.witness {
			event.Kind = eventLeader
		}
		from := mark{"elected", t.Elected}
		switch {
		case t.Freed != 0 && (t.Stood == 0 || t.Freed <= t.Stood):
			from = mark{"lease ended", t.Freed}
		case t.Stood != 0:
			from = mark{"stood for election", t.Stood}
		}
		event.From = from.name
		steps := []mark{{"lease ended", t.Freed}, {"stood for election", t.Stood}, {"elected", t.Elected}, {"lease granted", t.Leased}, {"daemons ready", w.ready}, {"VIPs up", w.up}}
		event.Steps, event.TotalMS = stepsSince(from, steps)
		if w.keeps && w.up == 0 {
			event.Cause += "; the VIPs are not up yet, see status"
		}
	case falling:
		event.Kind, event.Cause = eventStandby, fallCause(t)
		if w.witness {
			event.Kind = eventFollower
		}
		event.Time = time.Now().Add(t.Ended - now)
		from := mark{"lease ended", t.Ended}
		event.From = from.name
		if w.keeps {
			event.Steps, event.TotalMS = stepsSince(from, []mark{{"fence shut", w.shut}, {"VIPs gone", w.gone}})
		}
	default:
		return nil
	}
	w.phase = resting
	return []api.Event{event}
}

// A mark is a step and when it was done, since boot; 0 = not.
type mark struct {
	name string
	at   time.Duration
}

// stepsSince returns how long each step took after the one before, in whole
// milliseconds that add up to the total.
func stepsSince(from mark, marks []mark) (steps []api.Step, total int64) {
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	for _, m := range marks {
		if m.at == 0 || m.at < from.at || m.name == from.name {
			continue
		}
		ms := m.at.Milliseconds() - from.at.Milliseconds()
		steps = append(steps, api.Step{Name: m.name, MS: ms - total})
		total = ms
	}
	return steps, total
}

func riseCause(t cluster.Tenure) string {
	switch t.Rise {
	case cluster.Succession:
		return fmt.Sprintf("succeeded %s, whose lease ended; this node called the election", t.Former)
	case cluster.Handover:
		cause := fmt.Sprintf("%s gave leadership to this node", t.Former)
		if t.Reason != "" {
			cause += ": " + t.Reason
		}
		return cause
	case cluster.Resumption:
		return "the lease was granted again, and nobody else led meanwhile"
	}
	if t.Former == "" {
		return "elected; no leader was known before"
	}
	return fmt.Sprintf("elected after raft's own timers ran out; %s led before", t.Former)
}

func fallCause(t cluster.Tenure) string {
	switch t.Fall {
	case cluster.Given:
		return fmt.Sprintf("gave its lease up for a transfer to %s: %s", t.Heir, t.Why)
	case cluster.Unheard:
		if len(t.Silent) == 0 {
			return "lease not renewed: a majority of the voters did not grant it"
		}
		cause := "lease not renewed: no answer from " + strings.Join(t.Silent, ", ")
		if t.Since != 0 {
			cause += fmt.Sprintf(" for %d ms before its end", max(t.Ended-t.Since, 0).Milliseconds())
		}
		return cause
	case cluster.Stalled:
		return "lease not renewed: this node did not ask in time; it was stopped, or too busy"
	case cluster.Stopped:
		return "this node stops, and gave its lease to nobody"
	}
	return "a later term began"
}

// A vipWatch turns the keeper's counters into events, of each kind one at once and
// then at most one every repeatLimit.
type vipWatch struct {
	fence, address, foreign counterWatch
}

type counterWatch struct {
	told uint64
	next time.Duration // none before
	late bool          // there is one to tell then
}

// look tells what has been counted since.
func (w *vipWatch) look(now time.Duration, s vip.Status) (told []api.Event) {
	note := func(c *counterWatch, count uint64, kind, format string, args ...any) {
		fresh := count - c.told
		if c.late = fresh > 0 && now < c.next; fresh == 0 || c.late {
			return
		}
		c.told, c.next = count, now+repeatLimit
		cause := fmt.Sprintf(format, args...)
		if fresh > 1 {
			cause += fmt.Sprintf(" (the last of %d)", fresh)
		}
		told = append(told, api.Event{Kind: kind, Cause: cause})
	}
	note(&w.fence, s.FenceRebuilt, eventFence, "somebody removed the fence or a part of it; it was built anew")
	note(&w.address, s.AddressesRepaired, eventAddress, "somebody removed the VIP %s; it was put back", s.Repaired)
	note(&w.foreign, s.ForeignAnnouncements, eventForeign, "%s announced the VIP %s as its own; it was announced again from here", s.Foreign.MAC, s.Foreign.Address)
	return told
}

func (w *vipWatch) wait(now time.Duration) time.Duration {
	wait := time.Hour
	for _, c := range []counterWatch{w.fence, w.address, w.foreign} {
		if c.late {
			wait = min(wait, max(c.next-now, 0))
		}
	}
	return wait
}
