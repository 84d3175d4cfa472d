// Package track tells whether interfaces and gateways that a director needs are there.
package track

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// lookEvery is the time between two looks at the interfaces.
	lookEvery = 250 * time.Millisecond
	// askEvery is the time between two echo requests to a gateway, and how long each
	// waits for its answer.
	askEvery = time.Second
	// maxUnanswered is how many in a row make a gateway unreachable.
	maxUnanswered = 3
)

// A Trouble is an interface or a gateway that is not as it must be.
type Trouble struct {
	Object  string    // name of the interface or address of the gateway
	Message string    // for people
	Since   time.Time // when it was first so
	Shared  bool      // others may have the same soon: it is a gateway's
}

// Tracker watches interfaces and gateways. Run does; Troubles is safe for concurrent
// use and never blocks.
type Tracker struct {
	interfaces []string
	gateways   []netip.Addr
	log        *slog.Logger
	list       func() ([]net.Interface, error)
	dial       func(netip.Addr) (asker, error)

	mu       sync.Mutex
	troubles map[string]Trouble // by the name or address that it is about
}

// An asker sends echo requests to one gateway.
type asker interface {
	// Ask returns nil when the gateway has answered before the deadline.
	Ask(deadline time.Time) error
	Close() error
}

// New returns a tracker of the interfaces of those names and of the gateways.
func New(interfaces []string, gateways []netip.Addr, log *slog.Logger) *Tracker {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	sorted := slices.Sorted(slices.Values(interfaces))
	return &Tracker{
		interfaces: slices.Compact(sorted), gateways: gateways, log: log,
		list: net.Interfaces, dial: dialEcho, troubles: map[string]Trouble{},
	}
}

// Troubles returns what is not as it must be now, by message.
func (t *Tracker) Troubles() []Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	var troubles []Trouble
	for _, trouble := range t.troubles {
		troubles = append(troubles, trouble)
	}
	slices.SortFunc(troubles, func(a, b Trouble) int { return strings.Compare(a.Message, b.Message) })
	return troubles
}

// Run watches until ctx is done, and then returns nil. It works in the network
// namespace of the process, and may be called once.
func (t *Tracker) Run(ctx context.Context) error {
	var group errgroup.Group
	if len(t.interfaces) > 0 {
		group.Go(func() error { t.watch(ctx); return nil })
	}
	for _, g := range t.gateways {
		group.Go(func() error { t.ask(ctx, g); return nil })
	}
	return group.Wait()
}

// watch looks at the interfaces.
func (t *Tracker) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for failed := false; ; {
		there, err := t.list()
		if err != nil && !failed {
			t.log.Warn("the network interfaces cannot be listed", "error", err)
		}
		if failed = err != nil; !failed {
			for _, name := range t.interfaces {
				t.note(name, Trouble{Message: interfaceTrouble(there, name)})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func interfaceTrouble(there []net.Interface, name string) string {
	i := slices.IndexFunc(there, func(i net.Interface) bool { return i.Name == name })
	switch {
	case i < 0:
		return "there is no interface " + name
	case there[i].Flags&net.FlagUp == 0:
		return "interface " + name + " is switched off"
	case there[i].Flags&net.FlagRunning == 0:
		return "interface " + name + " has no carrier"
	}
	return ""
}

// ask asks one gateway for echoes.
func (t *Tracker) ask(ctx context.Context, gateway netip.Addr) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var a asker
	defer func() {
		if a != nil {
			_ = a.Close()
		}
	}()
	for unanswered := 0; ; {
		deadline := time.Now().Add(askEvery)
		var err error
		if a == nil {
			a, err = t.dial(gateway)
		}
		if err == nil {
			stop := context.AfterFunc(ctx, func() { _ = a.Close() })
			err = a.Ask(deadline)
			stop()
		}
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			unanswered = 0
			t.note(gateway.String(), Trouble{})
		case unanswered+1 < maxUnanswered:
			unanswered++
		default:
			t.note(gateway.String(), Trouble{Message: fmt.Sprintf("gateway %s does not answer", gateway), Shared: true})
		}
		if err != nil && a != nil { // its interface may be another one by now
			_ = a.Close()
			a = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// note keeps what is wrong with an interface or a gateway, without a message nothing.
func (t *Tracker) note(object string, now Trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, had := t.troubles[object]
	switch {
	case now.Message == "" && had:
		delete(t.troubles, object)
		t.log.Info("tracked: all is well again", "object", object)
	case now.Message != before.Message:
		if now.Since = before.Since; !had {
			now.Since = time.Now()
		}
		now.Object = object
		t.troubles[object] = now
		t.log.Warn("tracked: " + now.Message)
	}
}
