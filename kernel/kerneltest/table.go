package kerneltest

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

var (
	keyV4 = ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("10.9.0.100:80"))
	keyV6 = ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("[2001:db8::100]:80"))
	addr1 = netip.MustParseAddrPort("10.9.0.21:80")
	addr6 = netip.MustParseAddrPort("[2001:db8::21]:80")

	byPrefix  = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	byAddress = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
)

func service(key ipvs.ServiceKey) ipvs.Service {
	return ipvs.Service{Key: key, Scheduler: "wlc"}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantTable fails unless k holds exactly services.
func wantTable(t *testing.T, k Kernel, services ...ipvs.Service) {
	t.Helper()
	have, err := k.Table(t.Context())
	must(t, err)
	want := ipvs.TableOf(services...).Bare()
	if diff := cmp.Diff(want.Document(), have.Document(), byPrefix, byAddress); diff != "" {
		t.Fatalf("table (-want +got):\n%s", diff)
	}
}

func servicesReadBack(t *testing.T, k Kernel) {
	ctx := t.Context()
	wantTable(t, k)
	samples := Services()
	for _, s := range samples {
		named := s
		named.Name, named.Comment, named.NoVIP = "name", "not in the kernel", true
		if err := k.AddService(ctx, named); err != nil {
			t.Errorf("%+v: %v", s, err)
			continue
		}
		entry, err := k.Service(ctx, s.Key)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(ipvs.ServiceEntry{Service: s}, entry, byPrefix); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.Key, diff)
		}
	}
	entries, err := k.Services(ctx)
	must(t, err)
	if len(entries) != len(samples) {
		t.Errorf("%d services in the list, want %d", len(entries), len(samples))
	}
	wantTable(t, k, samples...)
	for _, s := range samples {
		must(t, k.DeleteService(ctx, s.Key))
	}
	wantTable(t, k)
}

func schedulers(t *testing.T, k Kernel) {
	for _, name := range append(ipvs.Schedulers(), "none") {
		s := service(keyV4)
		s.Scheduler = name
		err := k.AddService(t.Context(), s)
		if name == optional && errors.Is(err, kernel.ErrNoScheduler) {
			continue
		}
		must(t, err)
		wantTable(t, k, s)
		must(t, k.DeleteService(t.Context(), keyV4))
	}
}

func servicesEditedInPlace(t *testing.T, k Kernel) {
	ctx := t.Context()
	bases := []ipvs.Service{
		service(ipvs.ServiceAt(ipvs.UDP, netip.MustParseAddrPort("10.9.0.100:53"))),
		service(ipvs.ServiceAt(ipvs.UDP, netip.MustParseAddrPort("[2001:db8::100]:53"))),
		service(ipvs.ServiceMarked(ipvs.IPv4, 9)),
		service(ipvs.ServiceMarked(ipvs.IPv6, 9)),
	}
	d := ipvs.Destination{Addr: netip.MustParseAddrPort("10.9.0.21:53"), Forward: ipvs.Masq, Weight: 1}
	for i, base := range bases {
		must(t, k.AddService(ctx, base))
		if base.Key.Family == ipvs.IPv4 {
			must(t, k.AddDestination(ctx, base.Key, d))
		}
		for _, s := range Services() {
			if s.Key.Family != base.Key.Family {
				continue
			}
			s.Key = base.Key
			must(t, k.SetService(ctx, s))
			entry, err := k.Service(ctx, s.Key)
			must(t, err)
			if diff := cmp.Diff(s, entry.Service, byPrefix); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", s.Key, diff)
			}
		}
		must(t, k.SetService(ctx, base))
		if base.Key.Family == ipvs.IPv4 {
			bases[i].Destinations = []ipvs.Destination{d}
		}
	}
	wantTable(t, k, bases...)
}

func destinationsReadBack(t *testing.T, k Kernel) {
	ctx := t.Context()
	var want []ipvs.Service
	for _, key := range []ipvs.ServiceKey{keyV4, keyV6, ipvs.ServiceMarked(ipvs.IPv4, 3), ipvs.ServiceMarked(ipvs.IPv6, 3)} {
		s := service(key)
		must(t, k.AddService(ctx, s))
		s.Destinations = Destinations(key.Family == ipvs.IPv4, key.Family == ipvs.IPv6)
		for _, d := range s.Destinations {
			named := d
			named.Name, named.Comment = "name", "not in the kernel"
			must(t, k.AddDestination(ctx, key, named))
		}
		want = append(want, s)
	}
	wantTable(t, k, want...)

	entries, err := k.Destinations(ctx, keyV4)
	must(t, err)
	var got []ipvs.Destination
	for _, e := range entries {
		if e.ActiveConnections != 0 || e.Stats != (ipvs.Stats{}) {
			t.Errorf("%s has counters: %+v", e.Addr, e)
		}
		got = append(got, e.Destination)
	}
	slices.SortFunc(got, func(a, b ipvs.Destination) int { return a.Addr.Compare(b.Addr) })
	sorted := ipvs.Service{Destinations: want[0].Destinations}.Normalize().Destinations
	if diff := cmp.Diff(sorted, got, byAddress); diff != "" {
		t.Errorf("destinations (-want +got):\n%s", diff)
	}
	for _, d := range want[0].Destinations {
		must(t, k.DeleteDestination(ctx, keyV4, d.Addr))
	}
	want[0].Destinations = nil
	wantTable(t, k, want...)
}

func destinationsEditedInPlace(t *testing.T, k Kernel) {
	ctx := t.Context()
	s := service(keyV4)
	must(t, k.AddService(ctx, s))
	d := ipvs.Destination{Addr: addr1, Forward: ipvs.Masq, Weight: 1}
	must(t, k.AddDestination(ctx, keyV4, d))
	for _, d := range Destinations(true, false) { // a set replaces everything, tunnel options too
		d.Addr = addr1
		must(t, k.SetDestination(ctx, keyV4, d))
		s.Destinations = []ipvs.Destination{d}
		wantTable(t, k, s)
	}
	// A destination of the other family, in a tunnel, is another one.
	mixed := ipvs.Destination{Addr: addr6, Forward: ipvs.Tunnel, Weight: 1}
	must(t, k.AddDestination(ctx, keyV4, mixed))
	mixed.Weight = 7
	must(t, k.SetDestination(ctx, keyV4, mixed))
	s.Destinations = append(s.Destinations, mixed)
	wantTable(t, k, s)
	must(t, k.DeleteDestination(ctx, keyV4, addr6))
	s.Destinations = s.Destinations[:1]
	wantTable(t, k, s)
}

func applyGoesOn(t *testing.T, k Kernel) {
	s := service(keyV4)
	d := ipvs.Destination{Addr: addr1, Forward: ipvs.DRoute, Weight: 3}
	changes := []ipvs.Change{
		{Op: ipvs.AddDestination, Key: keyV4, Destination: &d},
		{Op: ipvs.AddService, Key: keyV4, Service: &s},
		{Op: ipvs.AddService, Key: keyV4, Service: &s},
		{Op: ipvs.AddDestination, Key: keyV4, Destination: &d},
		{Op: ipvs.SetTimeouts, Timeouts: &ipvs.Timeouts{TCP: 1}},
		{Op: ipvs.SetVIPs, VIPs: &ipvs.VIPs{}},
		{Op: ipvs.DeleteDestination, Key: keyV4, Address: addr6},
		{Op: ipvs.DeleteService, Key: keyV6},
	}
	want := []error{os.ErrNotExist, nil, os.ErrExist, nil, errors.ErrUnsupported, errors.ErrUnsupported, os.ErrNotExist, os.ErrNotExist}
	errs := k.Apply(t.Context(), changes)
	if len(errs) != len(changes) {
		t.Fatalf("%d errors for %d changes: %v", len(errs), len(changes), errs)
	}
	for i, err := range errs {
		if !errors.Is(err, want[i]) {
			t.Errorf("%s: error %v, want %v", changes[i], err, want[i])
		}
	}
	s.Destinations = []ipvs.Destination{d}
	wantTable(t, k, s)

	d.Weight = 4
	if errs := k.Apply(t.Context(), []ipvs.Change{{Op: ipvs.SetDestination, Key: keyV4, Destination: &d}}); errs != nil {
		t.Errorf("errors of changes that all succeeded: %v", errs)
	}
}

func missingService(t *testing.T, k Kernel) {
	ctx := t.Context()
	must(t, k.AddService(ctx, service(keyV4)))
	entries, err := k.Destinations(ctx, keyV4)
	if err != nil || len(entries) != 0 {
		t.Errorf("destinations of an empty service: %v, %v", entries, err)
	}
	for _, key := range []ipvs.ServiceKey{keyV6, ipvs.ServiceMarked(ipvs.IPv4, 4)} {
		if _, err := k.Destinations(ctx, key); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("destinations of missing %s: error %v", key, err)
		}
		if _, err := k.Service(ctx, key); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("missing %s: error %v", key, err)
		}
	}
}

func flushAndZero(t *testing.T, k Kernel) {
	ctx := t.Context()
	must(t, k.Flush(ctx))
	must(t, k.Zero(ctx, nil))
	for _, s := range Services() {
		must(t, k.AddService(ctx, s))
		must(t, k.Zero(ctx, &s.Key))
	}
	wantTable(t, k, Services()...)
	if err := k.Zero(ctx, &keyV6); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("zero of a missing service: error %v", err)
	}
	if err := k.Zero(ctx, &ipvs.ServiceKey{}); !errors.Is(err, ipvs.ErrInvalid) {
		t.Errorf("zero of the zero key: error %v", err)
	}
	must(t, k.Flush(ctx))
	wantTable(t, k)
}

func cancelled(t *testing.T, k Kernel) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.AddService(ctx, service(keyV4)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v with a cancelled context", err)
	}
	wantTable(t, k)
}

func concurrent(t *testing.T, k Kernel) {
	ctx := t.Context()
	var want []ipvs.Service
	var wg sync.WaitGroup
	for i := range uint16(8) {
		s := service(ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(keyV4.Addr, 2000+i)))
		d := ipvs.Destination{Addr: addr1, Forward: ipvs.Masq, Weight: int32(i)}
		wg.Go(func() {
			if err := errors.Join(k.AddService(ctx, s), k.AddDestination(ctx, s.Key, d)); err != nil {
				t.Error(err)
			}
			if _, err := k.Table(ctx); err != nil {
				t.Error(err)
			}
			entries, err := k.Destinations(ctx, s.Key)
			if err != nil || len(entries) != 1 || entries[0].Destination != d {
				t.Errorf("%s: got %+v, %v", s.Key, entries, err)
			}
		})
		whole := s
		whole.Destinations = []ipvs.Destination{d}
		want = append(want, whole)
	}
	wg.Wait()
	wantTable(t, k, want...)
}
