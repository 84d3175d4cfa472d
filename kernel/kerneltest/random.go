package kerneltest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

const (
	walks = 4
	steps = 150
)

// randomWalk makes random changes, most of them possible, and compares k with
// what ipvs.Table.Apply makes of them.
func randomWalk(t *testing.T, k Kernel) {
	for seed := range uint64(walks) {
		must(t, k.Flush(t.Context()))
		walk(t, k, rand.New(rand.NewPCG(seed, 0)))
	}
}

func walk(t *testing.T, k Kernel, rnd *rand.Rand) {
	t.Helper()
	off := ipvs.Sync{Disabled: true} // so that destinations of another family are valid
	want, err := ipvs.Table{}.Apply(ipvs.Change{Op: ipvs.SetSync, Sync: &off})
	must(t, err)
	for range steps {
		c := randomChange(rnd)
		next, wantErr := want.Apply(c)
		if errors.Is(wantErr, ipvs.ErrInvalid) {
			continue // a kernel has fewer rules
		}
		var got error
		if errs := k.Apply(t.Context(), []ipvs.Change{c}); errs != nil {
			got = errs[0]
		}
		switch {
		case wantErr == nil && got == nil:
			want = next
		case wantErr != nil && errors.Is(got, ipvs.ErrInvalid):
			// Both refuse it, and look at different things first.
		case wantErr == nil, got == nil, errors.Is(wantErr, os.ErrExist) != errors.Is(got, os.ErrExist),
			errors.Is(wantErr, os.ErrNotExist) != errors.Is(got, os.ErrNotExist):
			t.Fatalf("%s: error %v, want %v", c, got, wantErr)
		}
	}
	have, err := k.Table(t.Context())
	must(t, err)
	if diff := cmp.Diff(want.Bare().Document(), have.Document(), byPrefix, byAddress); diff != "" {
		t.Fatalf("table (-want +got):\n%s", diff)
	}
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

var ops = []ipvs.Op{
	ipvs.AddService, ipvs.AddService, ipvs.SetService, ipvs.DeleteService,
	ipvs.AddDestination, ipvs.AddDestination, ipvs.AddDestination, ipvs.SetDestination, ipvs.SetDestination, ipvs.DeleteDestination,
}

// randomChange is about one of few objects, so that they meet.
func randomChange(rnd *rand.Rand) ipvs.Change {
	keys := []ipvs.ServiceKey{
		keyV4, keyV6, ipvs.ServiceMarked(ipvs.IPv4, 7), ipvs.ServiceMarked(ipvs.IPv6, 7),
		ipvs.ServiceAt(ipvs.UDP, netip.MustParseAddrPort("10.9.0.100:80")),
	}
	c := ipvs.Change{Op: pick(rnd, ops), Key: pick(rnd, keys)}
	switch c.Op {
	case ipvs.AddService, ipvs.SetService:
		s := pick(rnd, Services())
		for s.Key.Family != c.Key.Family { // netmasks differ
			s = pick(rnd, Services())
		}
		s.Key = c.Key
		c.Service = &s
	case ipvs.AddDestination, ipvs.SetDestination:
		d := pick(rnd, Destinations(true, true))
		other := pick(rnd, Destinations(true, true))
		d.Addr = other.Addr
		c.Destination = &d
	case ipvs.DeleteDestination:
		c.Address = pick(rnd, Destinations(true, true)).Addr
	}
	return c
}

// Compare makes random changes to both kernels, possible and impossible ones, starts
// and stops daemons, and fails when they answer or end differently.
func Compare(t *testing.T, a, b Kernel, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range steps * 2 {
		what, do := randomStep(rnd)
		x, y := do(t, a), do(t, b)
		if verdict(x) != verdict(y) {
			t.Fatalf("%s: one says %v, the other %v", what, x, y)
		}
	}
	for _, read := range []func(k Kernel) (any, error){
		func(k Kernel) (any, error) { table, err := k.Table(t.Context()); return table.Document(), err },
		func(k Kernel) (any, error) { return k.Daemons(t.Context()) },
		func(k Kernel) (any, error) { return k.Timeouts(t.Context()) },
	} {
		x, err := read(a)
		must(t, err)
		y, err := read(b)
		must(t, err)
		if diff := cmp.Diff(x, y, byPrefix, byAddress); diff != "" {
			t.Fatalf("they end differently (-one +other):\n%s", diff)
		}
	}
}

// verdict is the errno of err, or what a check before the kernel said.
func verdict(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return fmt.Sprint(err)
}

func randomStep(rnd *rand.Rand) (what string, do func(*testing.T, Kernel) error) {
	switch rnd.IntN(20) {
	case 0:
		d := ipvs.Daemon{
			State:     pick(rnd, []ipvs.DaemonState{ipvs.Master, ipvs.Backup}),
			Interface: pick(rnd, []string{InterfaceUp, InterfaceUp, InterfaceDown, "nosuch0"}),
			SyncID:    rnd.Uint32N(257),
			MaxLen:    pick(rnd, []uint16{0, 0, 1024, 9188}),
			Group:     pick(rnd, []netip.Addr{{}, group4, keyV4.Addr}),
			Port:      pick(rnd, []uint16{0, 8848, 1}),
			TTL:       pick(rnd, []uint8{0, 2}),
		}
		return fmt.Sprintf("start %+v", d), func(t *testing.T, k Kernel) error { return k.StartDaemon(t.Context(), d) }
	case 1:
		role := pick(rnd, []ipvs.DaemonState{ipvs.Master, ipvs.Backup})
		return "stop " + role.String(), func(t *testing.T, k Kernel) error { return k.StopDaemon(t.Context(), role) }
	case 2:
		timeouts := ipvs.Timeouts{TCP: ipvs.Seconds(rnd.Uint32N(1000)), UDP: pick(rnd, []ipvs.Seconds{0, 1, 1 << 31})}
		return fmt.Sprintf("%+v", timeouts), func(t *testing.T, k Kernel) error { return k.SetTimeouts(t.Context(), timeouts) }
	}
	c := randomChange(rnd)
	spoil(rnd, &c)
	return c.String(), func(t *testing.T, k Kernel) error {
		if errs := k.Apply(t.Context(), []ipvs.Change{c}); errs != nil {
			return errs[0]
		}
		return nil
	}
}

// spoil makes one change in four wrong somewhere.
func spoil(rnd *rand.Rand, c *ipvs.Change) {
	if rnd.IntN(4) != 0 {
		return
	}
	if s := c.Service; s != nil {
		switch rnd.IntN(5) {
		case 0:
			s.Scheduler = "nosuch"
		case 1:
			s.Persistence.Engine = "nosuch"
		case 2:
			s.Persistence.Prefix = 200
		case 3:
			s.Scheduler = "none"
		case 4:
			s.Flags |= 1 << rnd.IntN(8)
		}
	}
	if d := c.Destination; d != nil {
		switch rnd.IntN(5) {
		case 0:
			d.Weight = -1
		case 1:
			d.Upper, d.Lower = rnd.Int32N(3), rnd.Int32N(3)
		case 2:
			d.Tunnel = ipvs.TunnelOptions{Type: ipvs.TunnelType(rnd.IntN(4)), Port: uint16(rnd.IntN(2))}
		case 3:
			d.Forward = ipvs.Forward(rnd.IntN(9))
		case 4:
			d.Addr = netip.AddrPortFrom(netip.MustParseAddr("224.0.0.1"), 80)
		}
	}
}
