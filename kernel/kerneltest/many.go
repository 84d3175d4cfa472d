package kerneltest

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// many returns a table whose changes are more than any socket's buffer holds.
func many() (services []ipvs.Service, changes []ipvs.Change) {
	for i := range 1000 {
		addr := netip.AddrFrom4([4]byte{10, 9, byte(100 + i>>8), byte(i)})
		s := service(ipvs.ServiceAt(ipvs.TCP, netip.AddrPortFrom(addr, 80)))
		for j := range 9 {
			d := ipvs.Destination{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(10 + j), byte(i >> 8), byte(i)}), 80), Forward: ipvs.DRoute, Weight: 1}
			s.Destinations = append(s.Destinations, d)
		}
		services = append(services, s)
	}
	return services, ipvs.Diff(ipvs.Table{}, ipvs.TableOf(services...))
}

// eachBadFound plants seven bad objects in 10,000 changes.
func eachBadFound(t *testing.T, k Kernel) {
	services, changes := many()
	d := services[999].Destinations[0]
	with := func(change func(d *ipvs.Destination)) *ipvs.Destination {
		other := d
		other.Addr = addr1
		change(&other)
		return &other
	}
	unknown := service(keyV6)
	unknown.Scheduler = "nosuch"
	planted := []struct {
		at     int
		change ipvs.Change
		want   error
	}{
		{0, ipvs.Change{Op: ipvs.AddDestination, Key: keyV6, Destination: &ipvs.Destination{Addr: addr6, Forward: ipvs.Masq}}, os.ErrNotExist},
		{200, ipvs.Change{Op: ipvs.AddService, Key: services[0].Key, Service: &services[0]}, os.ErrExist},
		{201, ipvs.Change{Op: ipvs.AddService, Key: keyV6, Service: &unknown}, kernel.ErrNoScheduler},
		{3999, ipvs.Change{Op: ipvs.AddDestination, Key: services[0].Key, Destination: with(func(d *ipvs.Destination) { d.Lower = 2; d.Upper = 1 })}, ipvs.ErrInvalid},
		{4000, ipvs.Change{Op: ipvs.AddDestination, Key: services[0].Key, Destination: with(func(d *ipvs.Destination) { d.Forward = 8 })}, ipvs.ErrInvalid},
		{7777, ipvs.Change{Op: ipvs.DeleteDestination, Key: services[0].Key, Address: addr1}, os.ErrNotExist},
		{len(changes) + 6, ipvs.Change{Op: ipvs.AddDestination, Key: services[999].Key, Destination: &d}, os.ErrExist},
	}
	want := map[int]error{}
	for _, p := range planted { // in order, so that each comes to be at its place
		changes = append(changes[:p.at], append([]ipvs.Change{p.change}, changes[p.at:]...)...)
		want[p.at] = p.want
	}
	errs := k.Apply(t.Context(), changes)
	if len(errs) != len(changes) {
		t.Fatalf("%d errors for %d changes", len(errs), len(changes))
	}
	for i, err := range errs {
		if (err == nil) != (want[i] == nil) || !errors.Is(err, want[i]) {
			t.Errorf("change %d, %s: error %v, want %v", i, changes[i], err, want[i])
		}
	}
	wantTable(t, k, services...)
}

// cancelledInTheMiddle ends the context while changes are being carried out: what
// the errors say about each of them must be so.
func cancelledInTheMiddle(t *testing.T, k Kernel) {
	services, changes := many()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan []error)
	go func() { result <- k.Apply(ctx, changes) }()
	for {
		if _, err := k.Service(t.Context(), services[0].Key); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
			break
		}
	}
	cancel()
	errs := <-result
	have, err := k.Table(t.Context())
	must(t, err)
	unknown := 0
	for i, c := range changes {
		var err error
		if errs != nil {
			err = errs[i]
		}
		if errors.Is(err, kernel.ErrUnanswered) {
			unknown++
			continue
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v", c, err)
		}
		s := have.Service(c.Key)
		there := s != nil
		if there && c.Op == ipvs.AddDestination {
			_, there = s.Destination(c.Destination.Addr)
		}
		if there != (err == nil) {
			t.Fatalf("%s: error %v, but it is in the table: %t", c, err, there)
		}
	}
	if unknown > 200 {
		t.Errorf("the outcome of %d changes is unknown", unknown)
	}
}
