package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/boottime"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/vip"
)

// releaseTimeout is how long the fence may take to shut before a planned handover
// lets the lease run out instead.
const releaseTimeout = time.Second

// mapped are the table's virtual addresses on this host: those with an interface, and
// those without one, with the reason. It is never written to again.
type mapped struct {
	addresses []vip.Address
	refused   []api.ObjectError
	unfit     bool      // because of refused
	since     time.Time // of refused
}

// newKeeper makes the part that owns VIPs, nil when the configuration names no
// interface for them or the kernel is none of this host.
func (a *Agent) newKeeper(opts Options) (Keeper, error) {
	if opts.VIPs != nil {
		return opts.VIPs, nil
	}
	if a.cfg.VIP.Interface == "" || a.inMemory || opts.Kernel != nil {
		return nil, nil
	}
	keeper, err := vip.New(vip.Config{
		Fence:   a.cfg.VIP.Fence == configs.NFT,
		Allow:   a.cfg.VIP.Allow,
		DataDir: a.cfg.DataDir,
		Logger:  a.log.With("part", "vip"),
	})
	if err != nil {
		return nil, fmt.Errorf("own VIPs: %w", err)
	}
	return keeper, nil
}

// mapVIPs finds the interface of each virtual address.
func (a *Agent) mapVIPs(t ipvs.Table) *mapped {
	m := &mapped{since: time.Now(), unfit: true}
	vips := t.VIPs()
	if a.keeper == nil {
		// Those that are found among the services may be somebody else's business.
		m.unfit = t.ListsVIPs()
		if len(vips) > 0 && a.cfg.VIP.Interface == "" && !a.inMemory {
			m.refused = []api.ObjectError{{Object: "vips", Message: fmt.Sprintf(
				"this node's configuration has no vip.interface: it takes none of the table's %d virtual addresses", len(vips))}}
		}
		return m
	}
	for _, v := range vips {
		name := a.cfg.VIP.Interface
		if v.Network != "" {
			name = a.cfg.VIP.Networks[v.Network]
		}
		if name == "" {
			m.refused = append(m.refused, api.ObjectError{
				Object:  "vip " + v.Prefix.String(),
				Message: fmt.Sprintf("this node's configuration names no interface for network %s (vip.networks)", v.Network),
			})
			continue
		}
		m.addresses = append(m.addresses, vip.Address{Prefix: v.Prefix, Interface: name})
	}
	if before := a.vips.Load(); before != nil && slices.Equal(before.refused, m.refused) {
		m.since = before.since
	}
	return m
}

// onLease is told by the cluster how long this node certainly has the only lease.
func (a *Agent) onLease(until time.Duration) {
	before := a.lease.Swap(int64(until))
	if until > 0 && before == 0 {
		a.wake()
	}
	a.pushVIPs()
}

// pushVIPs tells the keeper which addresses the cluster has, and until when they are
// this node's. It does not block.
func (a *Agent) pushVIPs() {
	m := a.vips.Load()
	if a.keeper == nil || m == nil {
		return
	}
	a.pushing.Lock() // what was read first must not be said last
	defer a.pushing.Unlock()
	var until time.Duration
	if a.active.Load() {
		until = time.Duration(a.lease.Load())
	}
	a.keeper.Set(m.addresses, until)
}

// owner reports whether packets for VIPs may be accepted here.
func (a *Agent) owner() bool { return a.keeper != nil && a.keeper.Status().MayServe() }

// ownerChanged returns a channel that is closed when owner may have changed; nil when
// it never does. To miss nothing take it before.
func (a *Agent) ownerChanged() <-chan struct{} {
	if a.keeper == nil {
		return nil
	}
	return a.keeper.Changed()
}

// prepareVIPs has the VIPs there, behind the shut fence, for a lease that may come. When
// none does they are gone again after the length of one.
func (a *Agent) prepareVIPs() {
	if a.keeper != nil {
		a.keeper.Prepare(boottime.Now() + a.cfg.Cluster.Timings().Lease)
	}
}

// beforeLease waits until the daemons of the active director run, and the VIPs are there
// behind the shut fence.
func (a *Agent) beforeLease(ctx context.Context) {
	a.prepareVIPs()
	for a.loop != nil {
		owning := a.ownerChanged()
		prepared, changed := a.prepared.get()
		if prepared && a.vipsPrepared() {
			return
		}
		select {
		case <-changed:
		case <-owning:
		case <-ctx.Done():
			return
		}
	}
}

// vipsPrepared reports whether there is nothing to be done for the VIPs before the lease.
func (a *Agent) vipsPrepared() bool {
	if a.keeper == nil || a.cfg.VIP.Fence != configs.NFT {
		return true
	}
	s := a.keeper.Status()
	return s.Prepared || s.MayServe()
}

// beforeRelease waits until no packet for a VIP is accepted here any more; onLease
// has been told so before.
func (a *Agent) beforeRelease(ctx context.Context) error {
	if a.keeper == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	for {
		resigned, changed, s := a.keeper.Resigned(), a.keeper.Changed(), a.keeper.Status()
		if !s.MayServe() && (s.Fence == vip.FenceShut || s.HeldCount == 0) {
			return nil
		}
		if s.MayServe() {
			changed = nil
		}
		select {
		case <-resigned:
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the VIPs are still owned after %s", releaseTimeout)
		}
	}
}

// vipStatus adds to status what is to be said about VIPs.
func (a *Agent) vipStatus(status *api.NodeStatus) {
	if m := a.vips.Load(); m != nil {
		status.Errors = append(status.Errors, m.refused...)
	}
	if a.keeper == nil {
		return
	}
	s := a.keeper.Status()
	status.VIPs, status.VIPCount = append(status.VIPs, s.Held...), s.HeldCount
	status.Fence = string(s.Fence)
	for _, w := range s.Warnings {
		status.Errors = append(status.Errors, api.ObjectError{Object: "record of addresses", Message: w})
	}
	for _, e := range s.Errors {
		status.Errors = append(status.Errors, api.ObjectError{Object: "vip " + e.Object, Message: e.Message})
	}
}
