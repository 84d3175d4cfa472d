package vip

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/fault"
)

const (
	// MaxListed bounds the lists of a Status.
	MaxListed = 1000

	loggedObjects = 5 // named in one line of the log
)

// Fence is the state of the fence.
type Fence string

// States of the fence. What is neither is said in an error.
const (
	FenceShut    Fence = "shut"    // no packet to a VIP passes
	FenceOpen    Fence = "open"    // they pass until the lease ends
	FenceOff     Fence = "off"     // there is none: the configuration says so
	FenceUnknown Fence = "unknown" // the kernel refused something; a permit that was given still ends by itself
)

// Status is what a Keeper has and has not. It is a value: what it points to is
// never written to again.
type Status struct {
	Owner                bool         // the fence was opened and the lease has not ended since
	Opening              bool         // it is about to be opened
	Prepared             bool         // what this host may have of the addresses before a lease is there, behind the shut fence: see Keeper.Prepare
	Held                 []netip.Addr // addresses of ours on the host; at most MaxListed
	HeldCount            int
	Down                 []string // interfaces of VIPs that are missing, switched off or without carrier, sorted
	Fence                Fence
	FenceRebuilt         uint64     // times that somebody else had removed the fence, or a part of it
	AddressesRepaired    uint64     // addresses that somebody else had removed from the owner
	Repaired             netip.Addr // the last of them
	ForeignAnnouncements uint64     // ARP and neighbour advertisements by others for addresses that this owner held
	Foreign              Foreign    // one of the last of them
	// Errors is what is not as it should be and why, at most MaxListed. A director with an
	// error of an address cannot own it, now or when its turn comes. Objects are an
	// Address, "fence", "addresses", "record", "routes", "announcements".
	Errors     []fault.Fault
	ErrorCount int
	Warnings   []string // what an operator should know, though nothing is refused
}

// MayServe reports whether packets for VIPs may be accepted here.
func (s Status) MayServe() bool { return s.Owner || s.Opening }

// Foreign is an announcement of an owner's address by somebody else.
type Foreign struct {
	Address netip.Addr
	MAC     string // of who claims it
}

// Status returns the current status.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Changed returns a channel that is closed when the status changes. To miss nothing
// take it before Status.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// Resigned returns a channel that is closed when MayServe becomes false. Who waits for it,
// so that another host may serve, goes before those that wait for Changed.
func (k *Keeper) Resigned() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.resigned
}

// publish makes what a round found the status.
func (k *Keeper) publish() {
	w := k.newest()
	prepared := k.prepared(w) || k.fenceState == FenceShut && k.now() < min(w.soon, k.doubted)
	errs := slices.Clone(k.plan.problems)
	for object, err := range k.failures {
		errs = append(errs, fault.Fault{Object: object, Message: err.Error()})
	}
	if _, failure := k.claimer.now(); failure != "" {
		errs = append(errs, fault.Fault{Object: "record", Message: failure})
	}
	slices.SortFunc(errs, fault.Fault.Compare)
	listed := errs[:min(len(errs), MaxListed)]
	held := slices.SortedFunc(maps.Keys(k.held), netip.Addr.Compare)

	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.status
	fresh := fault.Date(listed, before.Errors, time.Now())
	s := Status{
		Owner: k.owner, Prepared: prepared, Held: held[:min(len(held), MaxListed)], HeldCount: len(held), Down: k.plan.down, Fence: k.fenceState,
		FenceRebuilt: k.fenceRebuilt, AddressesRepaired: k.repaired, Repaired: k.lastRepaired,
		ForeignAnnouncements: k.foreignCount, Foreign: k.lastForeign,
		Errors: listed, ErrorCount: len(errs), Warnings: k.warnings,
	}
	if s.equal(before) {
		return
	}
	k.status = s
	switch {
	case len(fresh) > 0:
		k.log.Warn("addresses or fence are not as they should be", "objects", len(errs), "new", len(fresh), "error", fault.Join(fresh, loggedObjects, len(fresh)))
	case len(errs) == 0 && before.ErrorCount > 0:
		k.log.Info("addresses and fence are as they should be again")
	}
	close(k.changed)
	k.changed = make(chan struct{})
	if before.MayServe() && !s.MayServe() {
		close(k.resigned)
		k.resigned = make(chan struct{})
	}
}

func (s Status) equal(o Status) bool {
	return s.Owner == o.Owner && s.Opening == o.Opening && s.Prepared == o.Prepared && slices.Equal(s.Held, o.Held) && s.HeldCount == o.HeldCount && slices.Equal(s.Down, o.Down) && s.Fence == o.Fence &&
		s.FenceRebuilt == o.FenceRebuilt && s.AddressesRepaired == o.AddressesRepaired &&
		s.ForeignAnnouncements == o.ForeignAnnouncements && slices.Equal(s.Errors, o.Errors) && s.ErrorCount == o.ErrorCount
}

// isGone reports whether err says that something is not there: a part of the fence,
// an address, or its interface.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV)
}
