package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/boottime"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/fsm"
	"github.com/ipvs-ha/ipvs-ha/reconcile"
	"github.com/ipvs-ha/ipvs-ha/track"
	"github.com/ipvs-ha/ipvs-ha/vip"
)

// What speaks against a director being the active one. The class of its fitness is the
// sum: the worst counts first, and of two that have it in common, the next. The less is
// left of the service, the worse, so that when nobody is fit the one serves that serves
// most: one that was only drained does all.
const (
	cold       = 1 << iota // it serves, and knows few of the connections
	drained                // it serves, and the operator wants another to
	incomplete             // its kernel lacks a part of the table
	homeless               // it cannot have some of the VIPs
	cutOff                 // it lacks what it tracks, or no connections reach the standbys
	linkless               // no packets for VIPs reach it
	useless                // it serves nothing
)

const (
	// A refusal that lasts shorter does not count: the next attempt may do. For the
	// active director it is longer: what befalls all, as a table that no kernel takes, has
	// then been told by the standbys, and moves nothing.
	graceStandby = time.Second
	graceActive  = 3 * time.Second
)

// health is what the fitness of a director is made from.
type health struct {
	now      time.Time
	active   bool // this node has the lease
	set      fsm.Director
	caughtUp bool // with the cluster, since the start
	warm     bool
	kernel   reconcile.Status
	vips     vip.Status        // zero when this node takes none
	unmapped []api.ObjectError // VIPs without an interface here
	mapped   time.Time         // since when
	troubles []track.Trouble
}

// fitness is asked by the cluster, many times a second.
func (a *Agent) fitness() cluster.Fitness { return a.health().fitness() }

func (a *Agent) health() health {
	state, now := a.machine.State(), boottime.Now()
	h := health{
		now:      time.Now(),
		active:   time.Duration(a.lease.Load()) > now,
		set:      state.Director(a.cfg.Node),
		caughtUp: a.caughtUp.Load(),
		kernel:   a.loop.Status(),
		troubles: a.tracker.Troubles(),
	}
	h.warm = state.Table().Sync().Disabled || a.cfg.Sync.Interface == "" || a.warm.Load()
	if m := a.vips.Load(); m != nil && m.unfit {
		h.unmapped, h.mapped = m.refused, m.since
	}
	if a.keeper != nil {
		h.vips = a.keeper.Status()
	}
	return h
}

// fitness judges, and says why in words.
func (h health) fitness() cluster.Fitness {
	f := cluster.Fitness{Preference: h.set.Preference}
	against := func(class int, reason string) {
		f.Class |= class
		f.Reasons = append(f.Reasons, reason)
	}
	var unread, refused, unsynced, homelessness []string
	for _, e := range h.kernel.Errors {
		switch {
		case !h.counts(e.Since):
		case e.Object == "table":
			unread = append(unread, e.Message)
		case e.Object == "sync daemons":
			unsynced = append(unsynced, e.Message)
		default:
			refused = append(refused, e.Object+": "+e.Message)
		}
	}
	for _, e := range h.unmapped {
		if h.counts(h.mapped) {
			homelessness = append(homelessness, e.Object+": "+e.Message)
		}
	}
	for _, e := range h.vips.Errors {
		address, err := vip.ParseAddress(e.Object)
		switch {
		case !h.counts(e.Since), err == nil && slices.Contains(h.vips.Down, address.Interface):
		case err == nil, e.Object == "fence", e.Object == "addresses":
			homelessness = append(homelessness, "vip "+e.Object+": "+e.Message)
		}
	}

	switch {
	case !h.caughtUp:
		against(useless, "it has not caught up with the cluster since it started")
	case len(unread) > 0:
		against(useless, "its kernel cannot be programmed: "+unread[0])
	case h.kernel.LastFull.IsZero():
		against(useless, "its kernel has not been programmed yet")
	}
	if len(h.vips.Down) > 0 {
		against(linkless, "the interface of VIPs is down: "+strings.Join(h.vips.Down, ", "))
	}
	for _, t := range h.troubles {
		if !t.Shared || !h.active || h.counts(t.Since) {
			against(cutOff, t.Message)
		}
	}
	if len(unsynced) > 0 {
		against(cutOff, "connections are not synchronised: "+unsynced[0])
	}
	if len(homelessness) > 0 {
		against(homeless, firstOf(homelessness))
	}
	if len(refused) > 0 {
		against(incomplete, "its kernel refuses "+firstOf(refused))
	}
	if h.set.Drained {
		against(drained, "drained by the operator")
	}
	if !h.warm && !h.active {
		against(cold, coldReason)
	}
	return f
}

// counts reports whether what has been wrong since then is more than a moment's
// trouble.
func (h health) counts(since time.Time) bool {
	grace := graceStandby
	if h.active {
		grace = graceActive
	}
	return h.now.Sub(since) >= grace
}

// firstOf is the first of some sentences, and how many more there are.
func firstOf(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return fmt.Sprintf("%s (and %d more)", list[0], len(list)-1)
}

// newTracker makes the part that watches what this director needs.
func (a *Agent) newTracker() *track.Tracker {
	var interfaces []string
	var gateways []netip.Addr
	if a.cfg.Sync.Interface != "" {
		interfaces = append(interfaces, a.cfg.Sync.Interface)
	}
	for _, needed := range a.cfg.Track {
		if needed.Interface != "" {
			interfaces = append(interfaces, needed.Interface)
		} else {
			gateways = append(gateways, needed.Gateway)
		}
	}
	return track.New(interfaces, gateways, a.log.With("part", "track"))
}
