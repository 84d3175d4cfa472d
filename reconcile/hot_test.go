package reconcile

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
)

// TestServiceThatIsWrittenAllTheTime: writes that come more often than the kernel can be
// read do not keep a service from being repaired.
func TestServiceThatIsWrittenAllTheTime(t *testing.T) {
	const writeEvery = 2 * time.Second
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &largeKernel{Kernel: memkernel.New(), reads: make(chan bool, 1000)}
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, DriftInterval: time.Hour})
		defer stop()
		table := func(n int) Desired {
			w := strconv.Itoa(n)
			return desired(t, uint64(n), "tcp://10.9.0.1:80,10.8.0.1*"+w+",10.8.0.2*"+w)
		}
		l.Set(table(1))
		time.Sleep(time.Minute)
		gone := parseService(t, "tcp://10.9.0.1:80,10.8.0.2").Destinations[0]
		if errs := k.ByHand().Apply(t.Context(), []ipvs.Change{{Op: ipvs.DeleteDestination, Key: testKey(1), Address: gone.Addr}}); errs != nil {
			t.Fatal(errs)
		}
		n := 1
		for range 60 {
			n++
			l.Set(table(n))
			time.Sleep(writeEvery)
		}
		checkTable(t, k.Kernel, table(n).Table)
		if s := l.Status(); !s.Converged || s.AppliedRevision != uint64(n) || s.DriftRepaired != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestServiceThatIsRefusedInPart: what the kernel takes of it is written, whoever waits is
// answered, and the kernel is not read all the time.
func TestServiceThatIsRefusedInPart(t *testing.T) {
	const (
		writeEvery = 2 * time.Second
		writes     = 100
	)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &largeKernel{Kernel: memkernel.New(), reads: make(chan bool, 1000)}
		k.Refuse(func(op, object string) error {
			if op == kernel.OpAddDestination && strings.Contains(object, "10.8.0.9") {
				return syscall.EINVAL
			}
			return nil
		})
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, DriftInterval: time.Hour})
		defer stop()
		table := func(n int) Desired {
			return desired(t, uint64(n), "tcp://10.9.0.1:80,10.8.0.9,10.8.0.1*"+strconv.Itoa(n))
		}
		l.Set(table(1))
		time.Sleep(time.Minute)
		reads := len(k.reads)
		answers := make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for n := 2; n < 2+writes; n++ {
			l.Set(table(n))
			if n == 3 {
				go func() { answers <- l.Now(ctx) }()
				go func() { answers <- l.WaitApplied(ctx, 3) }()
			}
			time.Sleep(writeEvery)
		}
		if len(answers) < 2 {
			t.Errorf("%d of 2 were answered", len(answers))
		}
		for range len(answers) {
			if err := <-answers; err == nil || !strings.Contains(err.Error(), "10.8.0.9") {
				t.Errorf("the answer does not name what is refused: %v", err)
			}
		}
		if share := time.Duration(len(k.reads)-reads) * readTime; share > writes*writeEvery/2 {
			t.Errorf("the kernel was read for %v of %v", share, writes*writeEvery)
		}
		time.Sleep(time.Minute)
		have, err := k.ByHand().Table(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d := have.Service(testKey(1)).Destinations; len(d) != 1 || d[0].Weight != writes+1 {
			t.Errorf("the kernel has %+v, want one of weight %d", d, writes+1)
		}
	})
}

// onceDeaf is a kernel that cannot be read once. It rests like a real one.
type onceDeaf struct {
	*memkernel.Kernel
	deaf atomic.Bool
}

func (k *onceDeaf) Table(ctx context.Context, opts ...kernel.TableOption) (ipvs.Table, error) {
	if k.deaf.Swap(false) {
		return ipvs.Table{}, syscall.ETIMEDOUT
	}
	took := time.Second
	if len(opts) > 0 {
		took *= 1 + lookRest
	}
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return ipvs.Table{}, ctx.Err()
	}
	return k.Kernel.Table(ctx)
}

// TestOneFailedRead of a kernel that is programmed: the error ends as soon as it can be
// read, and a write meanwhile is answered by what became of it.
func TestOneFailedRead(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &onceDeaf{Kernel: memkernel.New()}
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir})
		defer stop()
		l.Set(desired(t, 1, "tcp://10.9.0.1:80,10.8.0.1"))
		if err := l.WaitApplied(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		k.deaf.Store(true)
		for l.Status().ErrorCount == 0 {
			<-l.Changed()
		}
		failed := time.Now()
		last := desired(t, 2, "tcp://10.9.0.1:80,10.8.0.1*7")
		l.Set(last)
		if err := l.WaitApplied(t.Context(), 2, testKey(1)); err != nil {
			t.Errorf("a write that is carried out: %v", err)
		}
		checkTable(t, k.Kernel, last.Table)
		for l.Status().ErrorCount > 0 {
			<-l.Changed()
		}
		if lasted := time.Since(failed); lasted > 2*time.Second {
			t.Errorf("the error stood for %v", lasted)
		}
	})
}

// lateKernel carries changes out, but later than anybody waits.
type lateKernel struct {
	*memkernel.Kernel
	late atomic.Bool
}

func (k *lateKernel) Apply(ctx context.Context, changes []ipvs.Change) []error {
	if k.late.Load() {
		time.Sleep(applyTimeout + time.Second)
	}
	return k.Kernel.Apply(context.WithoutCancel(ctx), changes)
}

// TestARepairThatEndsLate is followed by a look at once, though nothing was refused.
func TestARepairThatEndsLate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &lateKernel{Kernel: memkernel.New()}
		k.late.Store(true)
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, DriftInterval: time.Hour})
		defer stop()
		l.Set(desired(t, 1, "tcp://10.9.0.1:80"))
		time.Sleep(applyTimeout)
		k.late.Store(false)
		began := time.Now()
		if err := l.WaitApplied(t.Context(), 1); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it was known to be applied after %v", took)
		}
	})
}
