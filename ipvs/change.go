package ipvs

import "net/netip"

// Op says what a Change does.
type Op string

// The operations. Adding what exists and setting or deleting what does not are
// errors.
const (
	AddService        Op = "add-service"
	SetService        Op = "set-service" // keeps the destinations
	DeleteService     Op = "delete-service"
	AddDestination    Op = "add-destination"
	SetDestination    Op = "set-destination"
	DeleteDestination Op = "delete-destination"
	SetSync           Op = "set-sync"
	SetTimeouts       Op = "set-timeouts"
	SetVIPs           Op = "set-vips"
)

// Change is one edit of a table. A user's edit, a log entry's, the reconciler's
// plan and a kernel request are all lists of these.
type Change struct {
	Op          Op             `json:"op"`
	Key         ServiceKey     `json:"key,omitzero"`          // every operation on services and destinations
	Service     *Service       `json:"service,omitempty"`     // AddService, SetService: without destinations, Service.Key == Key
	Destination *Destination   `json:"destination,omitempty"` // AddDestination, SetDestination
	Address     netip.AddrPort `json:"address,omitzero"`      // DeleteDestination
	Sync        *Sync          `json:"sync,omitempty"`        // SetSync
	Timeouts    *Timeouts      `json:"timeouts,omitempty"`    // SetTimeouts
	VIPs        *VIPs          `json:"vips,omitempty"`        // SetVIPs
}

// Target returns the address of the destination that c is about, and false for
// the other operations.
func (c Change) Target() (netip.AddrPort, bool) {
	switch c.Op {
	case AddDestination, SetDestination:
		if c.Destination != nil {
			return c.Destination.Addr, true
		}
	case DeleteDestination:
		return c.Address, true
	}
	return netip.AddrPort{}, false
}

// String names the operation and its object.
func (c Change) String() string {
	switch c.Op {
	case SetSync, SetTimeouts, SetVIPs:
		return string(c.Op)
	}
	s := string(c.Op) + " " + c.Key.String()
	if addr, ok := c.Target(); ok {
		s += " " + addr.String()
	}
	return s
}
