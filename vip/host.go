package vip

import (
	"context"
	"math"
	"net"
	"net/netip"
	"time"
)

// forever is the lifetime of an address that does not end.
const forever = time.Duration(math.MaxInt64)

// link is a network interface.
type link struct {
	Name    string
	Index   int
	MAC     net.HardwareAddr // empty: it has none, like loopback
	Up      bool             // switched on
	Carrier bool             // and connected
	Quiet   bool             // nobody resolves addresses on it: loopback, or no ARP
}

// hostAddress is an address that the host has.
type hostAddress struct {
	Prefix netip.Prefix
	Index  int           // of its link
	Valid  time.Duration // what is left of its life, or forever; whole seconds
}

// host is one look at this host.
type host struct {
	links     map[string]link
	addresses []hostAddress
}

// changeKind says what a change does.
type changeKind int

const (
	add    changeKind = iota // fails when the host has the address
	renew                    // gives the address a new life
	remove                   // fails with what isGone tells when the host has it not
)

// change is a change of one address of the host.
type change struct {
	kind   changeKind
	prefix netip.Prefix
	index  int // of the link
	life   time.Duration
}

// network is what the keeper needs of the host's interfaces. Each call ends within
// a few seconds.
type network interface {
	// Look returns all interfaces and addresses.
	Look() (host, error)
	// Apply carries out changes in order. It goes on after a failure and returns one
	// error for each change, or nil when none failed.
	Apply(changes []change) []error
}

// routes says which addresses the host sends packets through.
type routes interface {
	// NextHops returns the next hops of all routes. With a million routes it takes
	// seconds; it ends early, with any result, when ctx is done.
	NextHops(ctx context.Context) (map[netip.Addr]bool, error)
}
