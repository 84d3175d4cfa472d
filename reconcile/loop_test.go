package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

var _ Kernel = (*kernel.Client)(nil)

// runLoop runs a loop until the test ends or stop is called.
func runLoop(t *testing.T, c Config) (l *Loop, stop func()) {
	t.Helper()
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

func desired(t *testing.T, revision uint64, services ...string) Desired {
	t.Helper()
	var doc ipvs.Document
	for _, s := range services {
		doc.Services = append(doc.Services, parseService(t, s))
	}
	table, err := doc.Table()
	if err != nil {
		t.Fatal(err)
	}
	return Desired{Table: table, Revision: revision, Role: syncd.Standby, Interface: "eth0", Cluster: "lb"}
}

func checkTable(t *testing.T, k *memkernel.Kernel, want ipvs.Table) {
	t.Helper()
	have, err := k.ByHand().Table(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if changes := ipvs.Diff(have, want.Bare()); len(changes) > 0 {
		t.Errorf("the kernel lacks %v", changes)
	}
}

func TestWaitApplied(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := memkernel.New(memkernel.WithoutScheduler("mh"))
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir})
		waited := make(chan error, 1)
		go func() { waited <- l.WaitApplied(t.Context(), 7) }()
		l.Set(desired(t, 6, "tcp://10.9.0.1:80"))
		synctest.Wait()
		if len(waited) != 0 {
			t.Fatalf("revision 7 is not there yet, but: %v", <-waited)
		}
		changed := l.Changed()
		l.Set(desired(t, 7, "tcp://10.9.0.1:80,10.8.0.1"))
		<-changed
		if err := <-waited; err != nil {
			t.Errorf("revision 7: %v", err)
		}

		l.Set(desired(t, 9, "tcp://10.9.0.1:80,10.8.0.1", "tcp://10.9.0.2:80,mh,10.8.0.1"))
		err := l.WaitApplied(t.Context(), 8)
		if err == nil || !strings.Contains(err.Error(), "tcp://10.9.0.2:80") || strings.Contains(err.Error(), "10.9.0.1") || strings.Contains(err.Error(), "destination") {
			t.Errorf("revision 8, want an error about tcp://10.9.0.2:80 alone: %v", err)
		}
		for key, inKernel := range map[string]bool{"tcp://10.9.0.1:80": true, "tcp://10.9.0.2:80": false} {
			if err := l.WaitApplied(t.Context(), 9, parseService(t, key).Key); (err == nil) != inKernel {
				t.Errorf("%s of revision 9: %v", key, err)
			}
		}
		first := l.Status().Errors[0].Since
		time.Sleep(5 * time.Second)
		if since := l.Status().Errors[0].Since; !since.Equal(first) {
			t.Errorf("refused since %v, then since %v", first, since)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.WaitApplied(ctx, 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("revision 10: %v", err)
		}
		stop()
	})
}

// TestAKernelThatIgnoresSettings: what an old kernel drops silently becomes an error
// instead of somebody's drift for ever.
func TestAKernelThatIgnoresSettings(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := memkernel.New(memkernel.WithoutTunnelOptions())
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir})
		d := desired(t, 1, "tcp://10.9.0.1:80")
		key := parseService(t, "tcp://10.9.0.1:80").Key
		gue := ipvs.Destination{Addr: netip.MustParseAddrPort("10.8.0.1:80"), Forward: ipvs.Tunnel, Tunnel: ipvs.TunnelOptions{Type: ipvs.GUE, Port: 6080}}
		var err error
		if d.Table, err = d.Table.Apply(ipvs.Change{Op: ipvs.AddDestination, Key: key, Destination: &gue}); err != nil {
			t.Fatal(err)
		}
		l.Set(d)
		time.Sleep(time.Minute)
		synctest.Wait()
		s := l.Status()
		if s.Converged || len(s.Errors) != 1 || !strings.Contains(s.Errors[0].Object, "10.8.0.1:80") || !strings.Contains(s.Errors[0].Message, "does not keep") {
			t.Errorf("status %+v", s)
		}
		before := s.DriftRepaired
		if before != 0 {
			t.Errorf("%d repairs of what nobody has changed", before)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s = l.Status(); s.DriftRepaired != before || s.Converged {
			t.Errorf("%d repairs, then %d, converged %t", before, s.DriftRepaired, s.Converged)
		}
		// Somebody who undoes an edit in every round is another matter.
		d = desired(t, 2, "tcp://10.9.0.1:80,10.8.0.1*3")
		l.Set(d)
		for range 5 {
			time.Sleep(11 * time.Second)
			synctest.Wait()
			weight := ipvs.Destination{Addr: gue.Addr, Forward: ipvs.Masq, Weight: 9}
			if err := k.ByHand().SetDestination(t.Context(), key, weight); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if s = l.Status(); !s.Converged || s.DriftRepaired != before+5 {
			t.Errorf("status %+v, want 5 more repairs than %d", s, before)
		}
		stop()
	})
}

func TestTheNewestValueWins(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := memkernel.New()
		writes := 0
		k.Refuse(func(op, _ string) error {
			if op == kernel.OpAddService {
				writes++
			}
			return nil
		})
		l, err := New(Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 { // nobody runs the loop yet: Set must not block
			l.Set(desired(t, uint64(i), fmt.Sprintf("tcp://10.9.0.%d:80", i+1)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		if err := l.WaitApplied(t.Context(), 99); err != nil {
			t.Error(err)
		}
		if writes != 1 {
			t.Errorf("%d services were added, want the newest only", writes)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		checkTable(t, k, desired(t, 99, "tcp://10.9.0.100:80").Table)
		if d, _ := k.ByHand().Daemons(t.Context()); len(d) != 1 {
			t.Errorf("stopping the loop left the daemons %v", d)
		}
	})
}

// blindKernel leaves a service out of its dumps, as Linux may while others write.
type blindKernel struct {
	*memkernel.Kernel
	hidden atomic.Pointer[ipvs.ServiceKey] // nil = none
	reads  atomic.Int32
}

func (k *blindKernel) Table(ctx context.Context, _ ...kernel.TableOption) (ipvs.Table, error) {
	k.reads.Add(1)
	table, err := k.Kernel.Table(ctx)
	hidden := k.hidden.Load()
	if err != nil || hidden == nil || table.Service(*hidden) == nil {
		return table, err
	}
	return table.Apply(ipvs.Change{Op: ipvs.DeleteService, Key: *hidden})
}

func TestADumpMayMissServices(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &blindKernel{Kernel: memkernel.New()}
		c := Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir}
		l, stop := runLoop(t, c)
		first := desired(t, 1, "tcp://10.9.0.1:80,10.8.0.1")
		l.Set(first)
		if err := l.WaitApplied(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		// It is edited instead of added, and the kernel is read again soon.
		hidden := testKey(1)
		k.hidden.Store(&hidden)
		k.reads.Store(0)
		_ = l.Now(t.Context())
		checkTable(t, k.Kernel, first.Table)
		if s := l.Status(); s.Converged || len(s.Errors) != 0 {
			t.Errorf("after a surprise: converged %v, errors %v", s.Converged, s.Errors)
		}
		k.hidden.Store(nil)
		time.Sleep(time.Second)
		if s := l.Status(); !s.Converged || k.reads.Load() < 2 || s.DriftRepaired != 0 {
			t.Errorf("a second later: converged %v after %d reads, %d repairs of what nobody has touched", s.Converged, k.reads.Load(), s.DriftRepaired)
		}
		// One that is to be deleted goes all the same.
		stop()
		k.hidden.Store(&hidden)
		l, stop = runLoop(t, c)
		l.Set(desired(t, 2))
		if err := l.WaitApplied(t.Context(), 2); err != nil {
			t.Error(err)
		}
		checkTable(t, k.Kernel, ipvs.Table{})
		stop()
	})
}

// A failover cannot wait until a large table has been read.
func TestRolesChangeBeforeTheKernelIsRead(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, dir)
		defer func() { h.stop() }()
		h.run([]string{"desire", "1", "standby"})
		active := h.desired([]string{"1", "active"})
		h.loop.mu.Lock() // both at once
		h.loop.desired = &active
		h.loop.fullWanted++
		h.loop.mu.Unlock()
		h.loop.ping()
		have := strings.Join(h.run([]string{"sleep", "1ms"})[:2], ", ")
		if want := `start-daemon master daemon on "eth0", read the kernel`; have != want {
			t.Errorf("have %s, want %s", have, want)
		}
	})
}

// stuckKernel does not answer while stuck.
type stuckKernel struct {
	*memkernel.Kernel
	stuck atomic.Bool
}

func (k *stuckKernel) Apply(ctx context.Context, changes []ipvs.Change) []error {
	if k.stuck.Load() {
		<-ctx.Done()
	}
	return k.Kernel.Apply(ctx, changes)
}

func TestAStuckKernel(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &stuckKernel{Kernel: memkernel.New()}
		k.stuck.Store(true)
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir})
		var services []string
		for i := range maxBatch { // two changes each
			services = append(services, fmt.Sprintf("tcp://10.9.%d.%d:80,10.8.0.1", i/200, i%200+1))
		}
		d := desired(t, 1, services...)
		l.Set(d)
		began := time.Now()
		err := l.WaitApplied(t.Context(), 1)
		if err == nil || !strings.Contains(err.Error(), "did not answer") || time.Since(began) > 2*applyTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		k.stuck.Store(false)
		time.Sleep(applyTimeout)
		if err := l.WaitApplied(t.Context(), 1); err != nil || !l.Status().Converged {
			t.Errorf("it answers again: %v, %+v", err, l.Status().Errors)
		}
		checkTable(t, k.Kernel, d.Table)

		k.stuck.Store(true) // and Run ends at once
		l.Set(desired(t, 2))
		synctest.Wait()
		began = time.Now()
		stop()
		if took := time.Since(began); took != 0 {
			t.Errorf("stopping took %v", took)
		}
	})
}

// TestConvergesFromAnything edits by hand and changes what is desired at random.
func TestConvergesFromAnything(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(base, "")
		if err != nil {
			rt.Fatal(err)
		}
		k := memkernel.New()
		c := Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, Exclusive: rapid.Bool().Draw(rt, "exclusive")}
		l, stop := runLoop(t, c)
		defer func() { stop() }()
		for step := range rapid.IntRange(1, 8).Draw(rt, "steps") {
			d := Desired{Table: drawTable(rt, "desired"), Revision: uint64(step + 1), Role: syncd.Active, Interface: "eth0", Cluster: "lb"}
			have, err := k.ByHand().Table(context.Background())
			if err != nil {
				rt.Fatal(err)
			}
			edits := ipvs.Diff(have.Bare(), drawTable(rt, "by hand").Bare())
			for _, c := range edits[:min(len(edits), rapid.IntRange(0, 6).Draw(rt, "edits"))] {
				_ = k.ByHand().Apply(context.Background(), []ipvs.Change{c}) // the loop may be in between
			}
			l.Set(d)
			if rapid.Bool().Draw(rt, "restart") {
				stop()
				l, stop = runLoop(t, c)
				l.Set(d)
			}
			if err := l.WaitApplied(context.Background(), d.Revision); err != nil {
				rt.Fatal(err)
			}
			if err := l.Now(context.Background()); err != nil {
				rt.Fatal(err)
			}
			have, err = k.ByHand().Table(context.Background())
			if err != nil {
				rt.Fatal(err)
			}
			s := l.Status()
			for service := range d.Table.Bare().Services() {
				if got := have.Service(service.Key); got == nil || !got.Equal(service) {
					rt.Fatalf("%s is %+v, want %+v", service.Key, got, service)
				}
			}
			if !s.Converged || have.Len() != d.Table.Len()+s.ForeignCount || c.Exclusive && s.ForeignCount > 0 {
				rt.Fatalf("%d services in the kernel, %d desired, status %+v", have.Len(), d.Table.Len(), s)
			}
		}
	})
}

// TestConcurrentUse has every method called at once, for the race detector; the
// kernel sees one writer, and beside it only those who read the whole table.
func TestConcurrentUse(t *testing.T) {
	k := memkernel.New()
	busy := make(chan struct{}, 1)
	k.Refuse(func(op, object string) error {
		if op == kernel.OpServices {
			return nil
		}
		select {
		case busy <- struct{}{}:
			<-busy
		default:
			t.Errorf("two goroutines use the kernel at once, one for %s of %s", op, object)
		}
		return nil
	})
	l, _ := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: t.TempDir(), DriftInterval: time.Millisecond})
	var users sync.WaitGroup
	l.Set(desired(t, 1))
	for range 4 {
		users.Go(func() {
			for i := range 50 {
				d := desired(t, uint64(i), fmt.Sprintf("tcp://10.9.0.%d:80,10.8.0.1*%d", rand.IntN(5)+1, rand.IntN(5)))
				d.Role = syncd.Role(rand.IntN(3))
				l.Set(d)
				_ = l.Status()
				if err := l.Now(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
	last := desired(t, 1000, "tcp://10.9.0.1:80")
	l.Set(last)
	if err := l.WaitApplied(t.Context(), 1000); err != nil {
		t.Error(err)
	}
	checkTable(t, k, last.Table)
}
