package track

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a host with one gateway.
type fake struct {
	mu     sync.Mutex
	links  []net.Interface
	err    error // of listing them
	silent bool  // the gateway
	dials  int
}

func (f *fake) list() ([]net.Interface, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.links, f.err
}

func (f *fake) dial(netip.Addr) (asker, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials++
	return f, nil
}

func (f *fake) Close() error { return nil }

func (f *fake) Ask(deadline time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.silent {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func messages(t *Tracker) string {
	var all []string
	for _, trouble := range t.Troubles() {
		all = append(all, trouble.Message)
	}
	return strings.Join(all, "; ")
}

func TestTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const well = net.FlagUp | net.FlagRunning
		f := &fake{links: []net.Interface{{Name: "eth0", Flags: well}, {Name: "eth1", Flags: well}}}
		tracker := New([]string{"eth1", "eth0", "eth1"}, []netip.Addr{netip.MustParseAddr("10.9.0.1")}, nil)
		tracker.list, tracker.dial = f.list, f.dial
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tracker.Run(ctx) }()
		expect := func(what, want string) {
			t.Helper()
			synctest.Wait()
			if got := messages(tracker); got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		expect("at first", "")
		f.change(func() { f.links[1].Flags = net.FlagUp })
		time.Sleep(lookEvery)
		expect("no carrier", "interface eth1 has no carrier")
		since := tracker.Troubles()[0].Since
		f.change(func() { f.links[1].Flags, f.links[0].Name = 0, "eth9" })
		time.Sleep(lookEvery)
		expect("both", "interface eth1 is switched off; there is no interface eth0")
		if got := tracker.Troubles()[0].Since; got != since {
			t.Errorf("the trouble began at %v, and then at %v", since, got)
		}
		f.change(func() { f.err = errors.New("no") })
		time.Sleep(lookEvery)
		expect("nothing is known", "interface eth1 is switched off; there is no interface eth0")
		f.change(func() { f.err, f.links[1].Flags, f.links[0].Name = nil, well, "eth0" })
		time.Sleep(lookEvery)
		expect("well again", "")

		time.Sleep(lookEvery / 2) // between two requests
		f.change(func() { f.silent = true })
		time.Sleep(2 * askEvery)
		f.change(func() { f.silent = false })
		time.Sleep(askEvery)
		f.change(func() { f.silent = true })
		time.Sleep(2 * askEvery)
		expect("two in a row", "")
		time.Sleep(askEvery)
		expect("three in a row", "gateway 10.9.0.1 does not answer")
		f.change(func() { f.silent = false })
		time.Sleep(askEvery)
		expect("an answer", "")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
