package kernel

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// slowKernel takes a second for a list of 2,000 services, which is two parts, and 20
// seconds for their destinations, 32 of each.
func slowKernel() *fakeKernel {
	var services, destinations [][]byte
	for mark := range uint32(2000) {
		services = append(services, appendService(nil, &ipvs.Service{Key: ipvs.ServiceMarked(ipvs.IPv4, mark+1), Scheduler: "rr"}))
	}
	for host := range byte(32) {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, 0, host}), 80)
		destinations = append(destinations, appendDestination(nil, &ipvs.Destination{Addr: addr, Forward: ipvs.Masq}))
	}
	return &fakeKernel{family: 32, answer: func(cmd uint8) ([][]byte, error) {
		if cmd == cmdGetService {
			time.Sleep(time.Second)
			return services, nil
		}
		time.Sleep(10 * time.Millisecond)
		return destinations, nil
	}}
}

// TestRest reads with and without, on a clock that only moves while the kernel works and
// the reader rests.
func TestRest(t *testing.T) {
	for _, c := range []struct {
		opts        []TableOption
		least, most time.Duration
	}{
		{nil, 21 * time.Second, 21 * time.Second},
		{[]TableOption{Rest(1)}, 41*time.Second + 500*time.Millisecond, 42 * time.Second},
		{[]TableOption{Rest(3)}, 81 * time.Second, 82 * time.Second}, // the list is followed by the longest rest
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			table, err := slowKernel().client().Table(t.Context(), c.opts...)
			if err != nil || table.Destinations() != 64_000 {
				t.Errorf("%d destinations, error %v", table.Destinations(), err)
			}
			if took := time.Since(began); took < c.least || took > c.most {
				t.Errorf("%v, want %v to %v", took, c.least, c.most)
			}
		})
	}
}

// TestRestEnds with the context.
func TestRestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 5*time.Second + time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		began := time.Now()
		_, err := slowKernel().client().Table(ctx, Rest(3))
		want(t, err, context.DeadlineExceeded)
		if took := time.Since(began); took != patience {
			t.Errorf("it ended after %v", took)
		}
	})
}
