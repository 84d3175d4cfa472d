package vip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errRefused = errors.New("refused")

// fakeHost behaves like a kernel: its interfaces, addresses, fence and wire. It logs
// what a keeper does. Time is that of the test.
type fakeHost struct {
	born time.Time

	mu        sync.Mutex
	links     map[string]link
	addresses map[Address]time.Time // when its life ends; zero = never
	hops      map[netip.Addr]bool
	readings  int                 // of the routes
	fenceless bool                // the configuration says so
	covered   map[netip.Addr]bool // nil: there is no fence
	permit    time.Time
	ops       []string
	refuse    map[string]error         // by the first word of an op
	delay     map[string]time.Duration // before an op takes effect
	look      func()
	reroute   func()
	heard     heard
	hears     bool   // the keeper wants to
	permitted func() // called before a permit is given; nil: nobody is
}

func newHost() *fakeHost {
	h := &fakeHost{
		born: time.Now().Add(-time.Hour), links: map[string]link{}, addresses: map[Address]time.Time{},
		hops: map[netip.Addr]bool{}, refuse: map[string]error{}, delay: map[string]time.Duration{},
	}
	for i, name := range []string{"eth0", "eth1"} {
		h.links[name] = link{Name: name, Index: i + 2, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 2)}, Up: true, Carrier: true}
	}
	h.byHand("10.9.0.11/24@eth0")
	h.byHand("2001:db8::11/64@eth0")
	return h
}

func address(s string) Address {
	a, err := ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func addresses(list ...string) []Address {
	var all []Address
	for _, s := range list {
		all = append(all, address(s))
	}
	return all
}

// byHand adds an address that does not end.
func (h *fakeHost) byHand(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses[address(s)] = time.Time{}
}

func (h *fakeHost) now() time.Duration { return time.Since(h.born) }

// do notes an op and returns what it is to fail with.
func (h *fakeHost) do(format string, args ...any) error {
	op := fmt.Sprintf(format, args...)
	word, _, _ := strings.Cut(op, " ")
	if d := h.delay[word]; d > 0 {
		h.mu.Unlock()
		time.Sleep(d)
		h.mu.Lock()
	}
	h.ops = append(h.ops, op)
	return h.refuse[word]
}

func (h *fakeHost) Look() (host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.delay["look"]; d > 0 {
		h.mu.Unlock()
		time.Sleep(d)
		h.mu.Lock()
	}
	if err := h.refuse["look"]; err != nil {
		return host{}, err
	}
	seen := host{links: map[string]link{}}
	for name, l := range h.links {
		seen.links[name] = l
	}
	for a, end := range h.addresses {
		valid := forever
		if !end.IsZero() {
			if valid = time.Until(end).Truncate(time.Second); valid <= 0 {
				delete(h.addresses, a)
				continue
			}
		}
		seen.addresses = append(seen.addresses, hostAddress{Prefix: a.Prefix, Index: h.links[a.Interface].Index, Valid: valid})
	}
	slices.SortFunc(seen.addresses, func(a, b hostAddress) int { return a.Prefix.Compare(b.Prefix) })
	return seen, nil
}

func (h *fakeHost) Apply(changes []change) []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	errs := make([]error, len(changes))
	for i, c := range changes {
		name := ""
		for n, l := range h.links {
			if l.Index == c.index {
				name = n
			}
		}
		a := Address{Prefix: c.prefix, Interface: name}
		if errs[i] = h.do("%s %s", [...]string{"add", "renew", "remove"}[c.kind], a); errs[i] != nil {
			continue
		}
		_, there := h.addresses[a]
		switch {
		case c.kind == add && there:
			errs[i] = os.ErrExist
		case c.kind == remove && !there:
			errs[i] = os.ErrNotExist
		case c.kind == remove:
			delete(h.addresses, a)
		default:
			h.addresses[a] = time.Now().Add(c.life)
		}
	}
	return errs
}

func (h *fakeHost) NextHops(ctx context.Context) (map[netip.Addr]bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readings++
	hops, err := maps.Clone(h.hops), h.refuse["hops"]
	if d := h.delay["hops"]; d > 0 {
		h.mu.Unlock()
		sleep(ctx, d, nil)
		h.mu.Lock()
	}
	return hops, err
}

// route makes routes lead through exactly these addresses.
func (h *fakeHost) route(through ...string) {
	h.mu.Lock()
	h.hops = map[netip.Addr]bool{}
	for _, a := range through {
		h.hops[netip.MustParseAddr(a)] = true
	}
	h.mu.Unlock()
	if h.reroute != nil {
		h.reroute()
	}
}

func (h *fakeHost) Covered() ([]netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.covered == nil {
		return nil, os.ErrNotExist
	}
	var addrs []netip.Addr
	for a := range h.covered {
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func (h *fakeHost) Build(addrs []netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	addrs = slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
	if err := h.do("build %v", addrs); err != nil {
		return err
	}
	h.covered, h.permit = map[netip.Addr]bool{}, time.Time{}
	for _, a := range addrs {
		h.covered[a] = true
	}
	return nil
}

func (h *fakeHost) Change(cover, uncover []netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.covered == nil {
		return os.ErrNotExist
	}
	slices.SortFunc(cover, netip.Addr.Compare)
	if err := h.do("cover %v not %v", cover, uncover); err != nil {
		return err
	}
	for _, a := range cover {
		h.covered[a] = true
	}
	for _, a := range uncover {
		delete(h.covered, a)
	}
	return nil
}

func (h *fakeHost) Permit(d time.Duration) error {
	if h.permitted != nil {
		h.permitted()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.do("permit %s", d); err != nil {
		return err
	}
	if h.covered == nil {
		return os.ErrNotExist
	}
	h.permit = time.Now().Add(d)
	return nil
}

func (h *fakeHost) Shut() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.do("shut"); err != nil {
		return err
	}
	if h.covered == nil {
		return os.ErrNotExist
	}
	h.permit = time.Time{}
	return nil
}

func (h *fakeHost) Remove() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.covered == nil {
		return nil
	}
	if err := h.do("unfence"); err != nil {
		return err
	}
	h.covered = nil
	return nil
}

// flush removes the fence as somebody else would.
func (h *fakeHost) flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.covered = nil
}

func (h *fakeHost) Check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	missing := h.covered == nil
	if d := h.delay["check"]; d > 0 {
		h.mu.Unlock()
		time.Sleep(d)
		h.mu.Lock()
	}
	if missing {
		return os.ErrNotExist
	}
	return h.refuse["check"]
}

func (h *fakeHost) Close() {}

func (h *fakeHost) Listen([]link) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refuse["listen"]
}

func (h *fakeHost) Hear(on bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hears = on
	return h.refuse["hear"]
}

func (h *fakeHost) Announce(_ link, a netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.do("announce %s at %s", a, time.Until(h.born).Abs()-time.Hour)
}

// open reports whether a packet to a would pass now.
func (h *fakeHost) open(a string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.covered[netip.MustParseAddr(a)] || time.Now().Before(h.permit)
}

func (h *fakeHost) has(s string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	end, ok := h.addresses[address(s)]
	return ok && (end.IsZero() || time.Now().Before(end))
}

// claims are addresses as they are in a record.
func claims(all []Address) map[Address]bool {
	m := map[Address]bool{}
	for _, a := range all {
		m[a] = true
	}
	return m
}

// take returns and forgets the ops but those with the given first words.
func (h *fakeHost) take(without ...string) []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	var ops []string
	for _, op := range h.ops {
		if word, _, _ := strings.Cut(op, " "); !slices.Contains(without, word) {
			ops = append(ops, op)
		}
	}
	h.ops = nil
	return ops
}

func (h *fakeHost) expect(t *testing.T, ops ...string) {
	t.Helper()
	if diff := cmp.Diff(ops, h.take("announce")); diff != "" {
		t.Errorf("ops (-want +got):\n%s", diff)
	}
}

// keeper starts a keeper on the host as a new process would; stop ends it.
func (h *fakeHost) keeper(t *testing.T, dir string) (k *Keeper, stop func()) {
	t.Helper()
	k, err := New(Config{Fence: !h.fenceless, DataDir: dir, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	k.connect = func(hd heard) (parts, error) {
		h.heard = hd
		return parts{
			fence: h, network: h, routes: h, wire: h, close: func() {},
			watch:   func(ctx context.Context, look func()) { h.look = look; <-ctx.Done() },
			reroute: func(ctx context.Context, read func()) { h.reroute = read; <-ctx.Done() },
		}, nil
	}
	h.permitted = func() {
		if !k.Status().MayServe() {
			t.Error("a permit is given, and the status says that nothing is served")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	synctest.Wait()
	return k, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
