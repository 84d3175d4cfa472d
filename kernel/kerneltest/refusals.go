package kerneltest

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// matches fails unless err matches each target.
func matches(t *testing.T, what string, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("%s: error %v does not match %v", what, err, target)
		}
	}
}

// refusals has what the kernel refuses. Before each case there is a service, keyV4,
// with one destination, addr1, and after it they must be as before.
func refusals(t *testing.T, k Kernel) {
	ctx := t.Context()
	before := service(keyV4)
	d := ipvs.Destination{Addr: addr1, Forward: ipvs.DRoute, Weight: 1, Upper: 9, Lower: 1}
	before.Destinations = []ipvs.Destination{d}
	must(t, k.AddService(ctx, before))
	must(t, k.AddDestination(ctx, keyV4, d))

	with := func(addr netip.AddrPort, change func(d *ipvs.Destination)) ipvs.Destination {
		d := ipvs.Destination{Addr: addr, Forward: ipvs.Masq, Weight: 1}
		if change != nil {
			change(&d)
		}
		return d
	}
	at := func(addr string) ipvs.Destination { return with(netip.MustParseAddrPort(addr), nil) }
	const fresh = "10.9.0.22:80"
	to := func(addr string, change func(d *ipvs.Destination)) ipvs.Destination {
		return with(netip.MustParseAddrPort(addr), change)
	}
	addService := func(change func(s *ipvs.Service), key ipvs.ServiceKey) func() error {
		s := service(key)
		change(&s)
		return func() error { return k.AddService(ctx, s) }
	}
	add := func(d ipvs.Destination) func() error {
		return func() error { return k.AddDestination(ctx, keyV4, d) }
	}
	set := func(d ipvs.Destination) func() error {
		return func() error { return k.SetDestination(ctx, keyV4, d) }
	}
	unknown := func(s *ipvs.Service) { s.Scheduler = "nosuch" }
	engine := func(s *ipvs.Service) { s.Persistence = ipvs.Persistence{Timeout: 1, Engine: "nosuch"} }
	nothing := func(*ipvs.Service) {}
	negative := func(d *ipvs.Destination) { d.Weight = -1 }
	lowerOnly := func(d *ipvs.Destination) { d.Lower = 1 }
	crossed := func(d *ipvs.Destination) { d.Upper, d.Lower = 2, 3 }
	gue := func(d *ipvs.Destination) { d.Forward, d.Tunnel.Type = ipvs.Tunnel, ipvs.GUE }
	gueMasq := func(d *ipvs.Destination) { d.Tunnel.Type = ipvs.GUE }
	setUnknown := before
	setUnknown.Scheduler = "nosuch"
	setUnknown.Persistence.Timeout = 5

	tests := []struct {
		name string
		do   func() error
		want []error
	}{
		{"add an existing service", addService(nothing, keyV4), []error{os.ErrExist, syscall.EEXIST}},
		{"existence before the scheduler", addService(unknown, keyV4), []error{os.ErrExist}},
		{"unknown scheduler", addService(unknown, keyV6), []error{os.ErrNotExist, kernel.ErrNoScheduler, syscall.ENOENT}},
		{"unknown engine", addService(engine, keyV6), []error{os.ErrNotExist, kernel.ErrNoScheduler, syscall.ENOENT}},
		{"prefix above 128", addService(func(s *ipvs.Service) { s.Persistence = ipvs.Persistence{Timeout: 1, Prefix: 129} }, keyV6), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"set a missing service", func() error { return k.SetService(ctx, service(keyV6)) }, []error{os.ErrNotExist, kernel.ErrNoService, syscall.ESRCH}},
		{"set an unknown scheduler", func() error { return k.SetService(ctx, setUnknown) }, []error{os.ErrNotExist, kernel.ErrNoScheduler}},
		{"delete a missing service", func() error { return k.DeleteService(ctx, keyV6) }, []error{os.ErrNotExist, kernel.ErrNoService}},
		{"delete a missing mark", func() error { return k.DeleteService(ctx, ipvs.ServiceMarked(ipvs.IPv4, 1)) }, []error{kernel.ErrNoService}},

		{"add an existing destination", add(d), []error{os.ErrExist, syscall.EEXIST}},
		{"add it with other settings", add(with(addr1, nil)), []error{os.ErrExist}},
		{"add to a missing service", func() error { return k.AddDestination(ctx, keyV6, at("[2001:db8::21]:80")) }, []error{os.ErrNotExist, kernel.ErrNoService, syscall.ESRCH}},
		{"set a missing destination", set(at(fresh)), []error{os.ErrNotExist, syscall.ENOENT}},
		{"set in a missing service", func() error { return k.SetDestination(ctx, keyV6, at(fresh)) }, []error{os.ErrNotExist, kernel.ErrNoService}},
		{"delete a missing destination", func() error { return k.DeleteDestination(ctx, keyV4, addr6) }, []error{os.ErrNotExist, syscall.ENOENT}},
		{"delete in a missing service", func() error { return k.DeleteDestination(ctx, keyV6, addr6) }, []error{os.ErrNotExist, kernel.ErrNoService}},
		{"negative weight", add(to(fresh, negative)), []error{ipvs.ErrInvalid, syscall.ERANGE}},
		{"set a negative weight", set(with(addr1, negative)), []error{ipvs.ErrInvalid, syscall.ERANGE}},
		{"lower threshold alone", add(to(fresh, lowerOnly)), []error{ipvs.ErrInvalid, syscall.ERANGE}},
		{"lower above upper", set(with(addr1, crossed)), []error{ipvs.ErrInvalid, syscall.ERANGE}},
		{"gue without a port", add(to(fresh, gue)), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"set gue without a port", set(with(addr1, gue)), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"gue without a port, not a tunnel", add(to(fresh, gueMasq)), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"0.0.0.0", add(at("0.0.0.0:80")), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"multicast", add(at("224.0.0.1:80")), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"broadcast", add(at("255.255.255.255:80")), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"other family, masq", add(at("[2001:db8::21]:80")), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"other family, droute", add(to("[2001:db8::21]:80", func(d *ipvs.Destination) { d.Forward = ipvs.DRoute })), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"other family, multicast", add(to("[ff02::1]:80", func(d *ipvs.Destination) { d.Forward = ipvs.Tunnel })), []error{ipvs.ErrInvalid, syscall.EINVAL}},
		{"other family, link-local", add(to("[fe80::1]:80", func(d *ipvs.Destination) { d.Forward = ipvs.Tunnel })), []error{ipvs.ErrInvalid, syscall.EINVAL}},
	}
	for _, test := range tests {
		matches(t, test.name, test.do(), test.want...)
		var op *kernel.OpError
		if err := test.do(); !errors.As(err, &op) || op.Op == "" || op.Object == "" || op.Hint == "" {
			t.Errorf("%s: error %v does not say what, about what and why", test.name, err)
		}
	}
	wantTable(t, k, before)
}

// refusedBeforeSent has what the kernel would take for something else.
func refusedBeforeSent(t *testing.T, k Kernel) {
	ctx := t.Context()
	must(t, k.AddService(ctx, service(keyV4)))
	mapped := netip.MustParseAddrPort("[::ffff:10.9.0.21]:80")
	changed := func(change func(s *ipvs.Service)) ipvs.Service {
		s := service(keyV6)
		change(&s)
		return s
	}
	services := map[string]ipvs.Service{
		"mapped address":     service(ipvs.ServiceAt(ipvs.TCP, mapped)),
		"zone":               service(ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("[fe80::1%eth0]:80"))),
		"no key":             {Scheduler: "rr"},
		"mark 0":             service(ipvs.ServiceMarked(ipvs.IPv4, 0)),
		"mark and address":   service(ipvs.ServiceKey{Family: ipvs.IPv4, FWMark: 1, Addr: keyV4.Addr}),
		"family of another":  service(ipvs.ServiceKey{Family: ipvs.IPv4, Protocol: ipvs.TCP, Addr: keyV6.Addr, Port: 80}),
		"no scheduler":       {Key: keyV6},
		"16 characters":      {Key: keyV6, Scheduler: "abcdefghijklmnop"},
		"NUL":                {Key: keyV6, Scheduler: "rr\x00"},
		"long engine":        changed(func(s *ipvs.Service) { s.Persistence = ipvs.Persistence{Timeout: 1, Engine: "abcdefghijklmnop"} }),
		"flag of another":    changed(func(s *ipvs.Service) { s.Flags = ipvs.SHPort }),
		"mask, no timeout":   changed(func(s *ipvs.Service) { s.Persistence.Prefix = 64 }),
		"IPv4 mask for IPv6": changed(func(s *ipvs.Service) { s.Persistence = ipvs.Persistence{Timeout: 1, Netmask: keyV4.Addr} }),
		"wrapping timeout":   changed(func(s *ipvs.Service) { s.Persistence.Timeout = 1<<32 - 1 }),
	}
	for name, s := range services {
		matches(t, name, k.AddService(ctx, s), ipvs.ErrInvalid)
	}
	plain := ipvs.Destination{Addr: addr1, Forward: ipvs.Masq, Weight: 1}
	destinations := map[string]func(d *ipvs.Destination){
		"mapped destination": func(d *ipvs.Destination) { d.Addr = mapped },
		"no address":         func(d *ipvs.Destination) { d.Addr = netip.AddrPort{} },
		"forward 8":          func(d *ipvs.Destination) { d.Forward = 8 },
		"negative upper":     func(d *ipvs.Destination) { d.Upper = -1 },
		"tunnel type 9":      func(d *ipvs.Destination) { d.Tunnel.Type = 9 },
		"tunnel flags 4":     func(d *ipvs.Destination) { d.Tunnel.Checksum = 4 },
	}
	for name, change := range destinations {
		d := plain
		change(&d)
		matches(t, name, k.AddDestination(ctx, keyV4, d), ipvs.ErrInvalid)
	}
	matches(t, "delete mapped", k.DeleteDestination(ctx, keyV4, mapped), ipvs.ErrInvalid)
	wantTable(t, k, service(keyV4))
}
