package vip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

// Config says what a Keeper works on.
type Config struct {
	Fence    bool                 // drop packets to VIPs unless this host is the owner
	Allow    []netip.Prefix       // what this host may take; empty = the networks of each address's interface
	DataDir  string               // for the record of addresses; must exist
	Now      func() time.Duration // the clock of deadlines; nil = boottime.Now
	Logger   *slog.Logger         // nil = discard
	Announce Announce
}

// Keeper makes this host answer for the VIPs until a deadline. Run is the only
// writer of the fence, of our addresses and of announcements; the other methods are
// safe for concurrent use and never block.
type Keeper struct {
	fenced   bool // the configuration wants a fence
	allow    []netip.Prefix
	now      func() time.Duration
	log      *slog.Logger
	timing   Announce
	pingC    chan struct{}
	claimer  *claimer
	gateways *gateways
	warnings []string
	connect  func(heard) (parts, error) // opens what is below, in Run's network namespace

	// Owned by Run.
	parts
	tenure
	covered      map[netip.Addr]bool // by the fence
	built        bool                // the fence is there as far as is known
	fenceState   Fence
	doubted      time.Duration    // until when the fence is not relied upon: see doubt
	forgone      time.Duration    // the end of the last lease that was given up early; 0 = none
	plan         plan             // of the last look
	host         host             // at the last look
	current      bool             // and nothing of ours was changed since
	failures     map[string]error // by the object of a Fault
	seen         uint64           // version of the wishes at the last look
	lookAt       time.Duration    // when the next look is due
	looked       time.Duration    // when the last one was
	fenceRebuilt uint64
	repaired     uint64
	lastRepaired netip.Addr
	foreignCount uint64
	lastForeign  Foreign

	mu       sync.Mutex
	wishes   wishes
	hint     bool // something about the host may have changed
	foreign  map[netip.Addr]net.HardwareAddr
	foreigns uint64              // heard since the last round
	holding  map[netip.Addr]link // what is ours to announce; never written to
	status   Status
	changed  chan struct{} // closed when status changes
	resigned chan struct{} // closed when that says that nothing is served any more
}

// wishes are what Set said.
type wishes struct {
	all     []Address
	version uint64 // of all; 0 = Set was not called yet
	until   time.Duration
	soon    time.Duration // see Prepare
}

// end is when the addresses are not wanted here any more.
func (w wishes) end() time.Duration { return max(w.until, w.soon) }

// parts are the ways to the kernel.
type parts struct {
	fence   fence
	network network
	routes  routes
	wire    announcer
	watch   func(ctx context.Context, look func()) // calls look at changes of interfaces and addresses until ctx is done
	reroute func(ctx context.Context, read func()) // calls read at changes of routes until ctx is done
	close   func()
}

// New reads the record of addresses and returns a keeper that has touched nothing
// else yet. A damaged record is no error: it is set aside, logged, and named in
// Status.Warnings.
func New(c Config) (*Keeper, error) {
	if c.Now == nil {
		c.Now = boottime.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	claims, warning, err := readRecord(c.DataDir)
	if err != nil {
		return nil, err
	}
	save := func(claims map[Address]bool) error { return writeRecord(c.DataDir, claims) }
	k := &Keeper{
		fenced: c.Fence, allow: c.Allow, now: c.Now, log: c.Logger, timing: c.Announce.withDefaults(),
		pingC: make(chan struct{}, 1), claimer: newClaimer(claims, save, c.Logger), gateways: newGateways(c.Logger),
		covered: map[netip.Addr]bool{}, fenceState: FenceUnknown, failures: map[string]error{},
		foreign: map[netip.Addr]net.HardwareAddr{}, status: Status{Fence: FenceUnknown}, changed: make(chan struct{}), resigned: make(chan struct{}),
		connect: func(h heard) (parts, error) { return connect(c.Fence, h) },
	}
	k.claimer.changed, k.gateways.changed = k.look, k.look
	if warning != nil {
		c.Logger.Error("record of addresses", "error", warning)
		k.warnings = []string{warning.Error()}
		k.status.Warnings = k.warnings
	}
	return k, nil
}

// connect opens the ways to the kernel of the network namespace of this thread.
func connect(fenced bool, h heard) (parts, error) {
	forKeeper, err := openNetwork()
	if err != nil {
		return parts{}, err
	}
	forRoutes, err := openNetwork()
	if err != nil {
		forKeeper.close()
		return parts{}, err
	}
	changes, err := openLinkEvents()
	if err != nil {
		forKeeper.close()
		forRoutes.close()
		return parts{}, err
	}
	reroutes, err := openRouteEvents(hasNextHop)
	if err != nil {
		forKeeper.close()
		forRoutes.close()
		changes.close()
		return parts{}, err
	}
	p := parts{
		fence: noFence{}, network: forKeeper, routes: forRoutes, wire: newWire(h), watch: changes.run, reroute: reroutes.run,
	}
	if fenced {
		p.fence = &nft{}
	}
	p.close = func() { forKeeper.close(); forRoutes.close(); p.fence.Close() }
	return p, nil
}

// Set says which VIPs the cluster owns, and that this host is their owner until a
// time since boot; zero, or a time in the past, says that it is not. The newest
// values win. A lease is renewed by calling Set again before it ends.
func (k *Keeper) Set(all []Address, until time.Duration) {
	k.mu.Lock()
	more := k.wishes.version == 0 || !slices.Equal(all, k.wishes.all)
	if more {
		k.wishes.all = slices.Clone(all)
		k.wishes.version++
	}
	news := more || until != k.wishes.until
	if until == 0 && k.wishes.until != 0 {
		k.wishes.soon = 0 // that was what it was for
	}
	k.wishes.until = until
	k.mu.Unlock()
	if news { // a standby hears many times a second that it is one
		k.ping()
	}
}

// Prepare says that this host may become the owner before a time since boot. Until then
// it has the addresses already, behind a shut fence: to add hundreds takes a while. With
// no fence, or one that somebody had removed a moment ago, it does nothing. The newest
// value wins.
func (k *Keeper) Prepare(soon time.Duration) {
	if !k.fenced {
		return
	}
	k.mu.Lock()
	k.wishes.soon = soon
	k.mu.Unlock()
	k.ping()
}

// newest is for Run: a lease that was given up has ended.
func (k *Keeper) newest() wishes {
	k.mu.Lock()
	w := k.wishes
	k.mu.Unlock()
	if w.until == k.forgone {
		w.until = 0
	}
	return w
}

func (k *Keeper) ping() {
	select {
	case k.pingC <- struct{}{}:
	default:
	}
}

// look has the host looked at soon.
func (k *Keeper) look() {
	k.mu.Lock()
	known := k.hint
	k.hint = true
	k.mu.Unlock()
	if !known { // each of hundreds of addresses is a hint
		k.ping()
	}
}

// hinted reports whether something about the host may have changed since the last look.
func (k *Keeper) hinted() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hint
}

// heard notes what somebody said on a link, when it is about an address of ours.
func (k *Keeper) heard(index int, a netip.Addr, mac net.HardwareAddr) {
	k.mu.Lock()
	l, ours := k.holding[a]
	foreign := ours && l.Index == index && !slices.Equal(l.MAC, mac)
	if foreign {
		k.foreign[a] = slices.Clone(mac)
		k.foreigns++
	}
	k.mu.Unlock()
	if foreign {
		k.ping()
	}
}

// Run keeps the VIPs until ctx is done. Then it shuts the fence, takes our addresses
// away and returns nil; the fence stays, shut. It may be called once.
func (k *Keeper) Run(ctx context.Context) error {
	p, err := k.connect(k.heard)
	if err != nil {
		return fmt.Errorf("keep the VIPs: %w", err)
	}
	k.parts = p
	k.gateways.routes = p.routes
	ctx, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { p.watch(ctx, k.look) })
	watcher.Go(func() { p.reroute(ctx, k.gateways.ping) })
	watcher.Go(func() { k.gateways.run(ctx) })
	claiming := make(chan struct{})
	go func() { defer close(claiming); k.claimer.run(ctx) }()
	defer func() {
		cancel()
		watcher.Wait()
		k.wire.Close()
		select {
		case <-claiming:
		case <-time.After(claimRetry): // on a disk that hangs it never ends
		}
		p.close()
	}()
	for {
		next := k.round()
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-k.pingC:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			k.leave()
			return nil
		}
	}
}
