// Package kerneltest is one conformance suite for everything that claims to be an
// IPVS: the kernel of Linux and the one in memory. What was learnt about Linux the
// hard way belongs here first.
package kerneltest

import (
	"context"
	"net/netip"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// Kernel is the whole method set of kernel.Client.
type Kernel interface {
	Services(ctx context.Context) ([]ipvs.ServiceEntry, error)
	Service(ctx context.Context, key ipvs.ServiceKey) (ipvs.ServiceEntry, error)
	Destinations(ctx context.Context, key ipvs.ServiceKey) ([]ipvs.DestinationEntry, error)
	Table(ctx context.Context, opts ...kernel.TableOption) (ipvs.Table, error)
	Apply(ctx context.Context, changes []ipvs.Change) []error
	AddService(ctx context.Context, s ipvs.Service) error
	SetService(ctx context.Context, s ipvs.Service) error
	DeleteService(ctx context.Context, key ipvs.ServiceKey) error
	AddDestination(ctx context.Context, key ipvs.ServiceKey, d ipvs.Destination) error
	SetDestination(ctx context.Context, key ipvs.ServiceKey, d ipvs.Destination) error
	DeleteDestination(ctx context.Context, key ipvs.ServiceKey, addr netip.AddrPort) error
	Zero(ctx context.Context, key *ipvs.ServiceKey) error
	Flush(ctx context.Context) error
	Daemons(ctx context.Context) ([]ipvs.Daemon, error)
	StartDaemon(ctx context.Context, d ipvs.Daemon) error
	StopDaemon(ctx context.Context, role ipvs.DaemonState) error
	Timeouts(ctx context.Context) (ipvs.Timeouts, error)
	SetTimeouts(ctx context.Context, t ipvs.Timeouts) error
	Info(ctx context.Context) (ipvs.Info, error)
	Close() error
}

// The interfaces that a kernel under test has, besides the loopback.
const (
	InterfaceUp   = "dummy0" // up, MTU 1500, with an IPv4 and a usable IPv6 link-local address
	InterfaceDown = "dummy1" // down
)

// Run runs the suite. Each test calls open for an IPVS with an empty table, no
// daemons, the default timeouts, the schedulers of Linux and the two interfaces;
// open closes it by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Kernel) {
	tests := []struct {
		name string
		run  func(*testing.T, Kernel)
	}{
		{"ServicesReadBack", servicesReadBack},
		{"Schedulers", schedulers},
		{"ServicesEditedInPlace", servicesEditedInPlace},
		{"DestinationsReadBack", destinationsReadBack},
		{"DestinationsEditedInPlace", destinationsEditedInPlace},
		{"Refusals", refusals},
		{"RefusedBeforeSent", refusedBeforeSent},
		{"ApplyGoesOn", applyGoesOn},
		{"MissingService", missingService},
		{"FlushAndZero", flushAndZero},
		{"DaemonsReadBack", daemonsReadBack},
		{"DaemonRefusals", daemonRefusals},
		{"DaemonsComeAndGo", daemonsComeAndGo},
		{"DaemonsAgainstMixedFamilies", daemonsAgainstMixedFamilies},
		{"Timeouts", timeouts},
		{"Info", info},
		{"RandomWalk", randomWalk},
		{"Cancelled", cancelled},
		{"EachBadFound", eachBadFound},
		{"CancelledInTheMiddle", cancelledInTheMiddle},
		{"Concurrent", concurrent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}
