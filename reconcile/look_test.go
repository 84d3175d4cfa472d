package reconcile

import (
	"context"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// largeKernel takes as long to tell its table as one with a large table.
type largeKernel struct {
	*memkernel.Kernel
	reads chan bool // has an element for each read that has begun: whether it may rest
	late  bool      // it tells what it held last, else what it held first
	fails atomic.Bool
}

const readTime = 5 * time.Second

func (k *largeKernel) Table(ctx context.Context, opts ...kernel.TableOption) (ipvs.Table, error) {
	table, err := k.Kernel.Table(ctx)
	k.reads <- len(opts) > 0
	select {
	case <-time.After(readTime):
	case <-ctx.Done():
		return ipvs.Table{}, ctx.Err()
	}
	if k.fails.Load() {
		return ipvs.Table{}, syscall.EIO
	}
	if k.late {
		return k.Kernel.Table(ctx)
	}
	return table, err
}

// TestChangesDoNotWaitForALook makes changes and moves the role while the kernel is
// read. What it says of services that were touched meanwhile is old, and must not be
// taken for drift; what somebody did to the others is repaired.
func TestChangesDoNotWaitForALook(t *testing.T) {
	for _, options := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
		exclusive, late := options[0], options[1]
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			k := &largeKernel{Kernel: memkernel.New(), reads: make(chan bool, 100), late: late}
			l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, Exclusive: exclusive, DriftInterval: time.Hour})
			defer stop()
			l.Set(desired(t, 1, "tcp://10.9.0.1:80,10.8.0.1", "tcp://10.9.0.2:80,10.8.0.1", "tcp://10.9.0.3:80,10.8.0.1"))
			if err := l.WaitApplied(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			if <-k.reads {
				t.Error("the first read rests while the kernel lacks the table")
			}
			stray := parseService(t, "tcp://10.9.0.3:80,10.8.0.1").Destinations[0]
			stray.Weight = 77
			if errs := k.ByHand().Apply(t.Context(), []ipvs.Change{{Op: ipvs.SetDestination, Key: testKey(3), Destination: &stray}}); errs != nil {
				t.Fatal(errs)
			}
			looked := make(chan error, 1)
			go func() { looked <- l.Now(t.Context()) }()
			if !<-k.reads {
				t.Error("a look aside does not rest")
			}
			began := time.Now()
			for revision, services := range [][]string{ // the last is as the first was; edited, added, deleted
				2: {"tcp://10.9.0.1:80,10.8.0.1*9", "tcp://10.9.0.2:80,10.8.0.1", "tcp://10.9.0.3:80,10.8.0.1", "tcp://10.9.0.4:80,10.8.0.1"},
				3: {"tcp://10.9.0.1:80,10.8.0.1*5", "tcp://10.9.0.3:80,10.8.0.1", "tcp://10.9.0.4:80,10.8.0.1"},
			} {
				if services == nil {
					continue
				}
				l.Set(desired(t, uint64(revision), services...))
				if err := l.WaitApplied(t.Context(), uint64(revision)); err != nil {
					t.Fatal(err)
				}
			}
			last := desired(t, 4, "tcp://10.9.0.1:80,10.8.0.1*5", "tcp://10.9.0.3:80,10.8.0.1", "tcp://10.9.0.4:80,10.8.0.1")
			last.Role = syncd.Active
			changed := l.Changed()
			l.Set(last)
			<-changed
			if took := time.Since(began); took >= readTime {
				t.Errorf("three changes and one of the role took %v: they have waited for a look", took)
			}
			if s := l.Status(); len(s.Daemons) == 0 || s.Daemons[0].State != ipvs.Master {
				t.Errorf("daemons %v, want a master", s.Daemons)
			}
			if err := <-looked; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took < readTime {
				t.Errorf("the look was over after %v, before the kernel had been read", took)
			}
			checkTable(t, k.Kernel, last.Table)
			if s := l.Status(); s.DriftRepaired != 1 || s.ForeignCount != 0 || !s.Converged {
				t.Errorf("%d repairs, want 1; %d foreign services; converged %v", s.DriftRepaired, s.ForeignCount, s.Converged)
			}
			// What they were made of is found by the next look.
			mine := parseService(t, "tcp://10.9.0.1:80,10.8.0.1*5").Destinations[0]
			mine.Weight = 3
			if errs := k.ByHand().Apply(t.Context(), []ipvs.Change{{Op: ipvs.SetDestination, Key: testKey(1), Destination: &mine}}); errs != nil {
				t.Fatal(errs)
			}
			if err := l.Now(t.Context()); err != nil {
				t.Error(err)
			}
			checkTable(t, k.Kernel, last.Table)
		})
	}
}

// TestASurpriseEndsALook: what was refused is looked at again at once, by a look that
// sees it.
func TestASurpriseEndsALook(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &largeKernel{Kernel: memkernel.New(), reads: make(chan bool, 100)}
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, DriftInterval: time.Hour})
		defer stop()
		l.Set(desired(t, 1, "tcp://10.9.0.1:80,10.8.0.1"))
		if err := l.WaitApplied(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		<-k.reads
		looked := make(chan error, 1)
		go func() { looked <- l.Now(t.Context()) }()
		<-k.reads
		if errs := k.ByHand().Apply(t.Context(), []ipvs.Change{{Op: ipvs.DeleteService, Key: testKey(1)}}); errs != nil {
			t.Fatal(errs)
		}
		d := desired(t, 2, "tcp://10.9.0.1:80,10.8.0.1*4")
		l.Set(d)
		if err := l.WaitApplied(t.Context(), 2); err != nil {
			t.Error(err)
		}
		if err := <-looked; err != nil {
			t.Error(err)
		}
		checkTable(t, k.Kernel, d.Table)
		if s := l.Status(); !s.Converged || len(k.reads) > 2 {
			t.Errorf("converged %v, after %d reads", s.Converged, len(k.reads))
		}
	})
}

// TestNobodyWaitsForALook has the kernel read for each reason, and changes the role and
// other services before that has ended.
func TestNobodyWaitsForALook(t *testing.T) {
	first := []string{"tcp://10.9.0.1:80,10.8.0.1,10.8.0.2", "tcp://10.9.0.2:80,10.8.0.1"}
	byHand := func(t *testing.T, k *largeKernel, c ipvs.Change) {
		t.Helper()
		if errs := k.ByHand().Apply(t.Context(), []ipvs.Change{c}); errs != nil {
			t.Fatal(errs)
		}
	}
	last := parseService(t, first[0]).Destinations[1]
	edited := last
	edited.Weight = 50
	for _, tc := range []struct {
		name    string
		begin   func(t *testing.T, l *Loop, k *largeKernel) // a read that is to end 5 s later
		unknown bool                                        // before it ends
		drift   uint64
	}{
		{"start", func(t *testing.T, l *Loop, k *largeKernel) {
			l.Set(desired(t, 1, first...))
		}, true, 0},
		{"surprise", func(t *testing.T, l *Loop, k *largeKernel) {
			l.Set(desired(t, 1, first...))
			time.Sleep(readTime + time.Second)
			byHand(t, k, ipvs.Change{Op: ipvs.DeleteDestination, Key: testKey(1), Address: last.Addr})
			l.Set(desired(t, 2, first[0]+"*9", first[1])) // ENOENT
		}, false, 0},
		{"failed look", func(t *testing.T, l *Loop, k *largeKernel) {
			l.Set(desired(t, 1, first...))
			time.Sleep(readTime + time.Second)
			k.fails.Store(true)
			_ = l.Now(t.Context())
			k.fails.Store(false)
			time.Sleep(200 * time.Millisecond) // it is repeated
		}, false, 0},
		{"doubt", func(t *testing.T, l *Loop, k *largeKernel) {
			l.Set(desired(t, 1, first...))
			time.Sleep(readTime + time.Second)
			byHand(t, k, ipvs.Change{Op: ipvs.SetDestination, Key: testKey(1), Destination: &edited})
			go func() { _ = l.Now(t.Context()) }()
			time.Sleep(readTime + time.Second) // it was set back, which is to be seen
		}, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				k := &largeKernel{Kernel: memkernel.New(), reads: make(chan bool, 100)}
				l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, DriftInterval: time.Hour})
				defer stop()
				tc.begin(t, l, k)
				synctest.Wait()
				began, reads := time.Now(), len(k.reads)
				services := []string{first[0] + "*9", first[1] + "*7", "tcp://10.9.0.3:80,10.8.0.1"}
				d := desired(t, 3, services...)
				d.Role = syncd.Active
				number := l.Set(d)
				synctest.Wait()
				daemons, err := k.ByHand().Daemons(t.Context())
				if err != nil || len(daemons) == 0 || daemons[0].State != ipvs.Master {
					t.Errorf("daemons %v, error %v: want a master", daemons, err)
				}
				have, err := k.ByHand().Table(t.Context())
				if err != nil || (have.Service(testKey(3)) != nil) == tc.unknown {
					t.Errorf("%d services before the look has ended, error %v", have.Len(), err)
				}
				if seen := l.Status().Seen >= number; seen == tc.unknown {
					t.Errorf("told that the role is carried out: %v", seen)
				}
				if !tc.unknown && len(l.Status().Errors) == 0 {
					if err := l.WaitApplied(t.Context(), 3, testKey(3)); err != nil {
						t.Error(err)
					}
				}
				if len(k.reads) != reads || !time.Now().Equal(began) {
					t.Error("that has taken another look")
				}
				if err := l.Now(t.Context()); err != nil {
					t.Error(err)
				}
				checkTable(t, k.Kernel, d.Table)
				if s := l.Status(); !s.Converged || s.AppliedRevision != 3 || s.DriftRepaired > tc.drift {
					t.Errorf("in the end: %+v, want at most %d repairs", s, tc.drift)
				}
			})
		})
	}
}

// TestSurprisesDoNotKeepALookFromEnding, however often they come.
func TestSurprisesDoNotKeepALookFromEnding(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &largeKernel{Kernel: memkernel.New(memkernel.WithoutScheduler("mh")), reads: make(chan bool, 100)}
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, DriftInterval: time.Hour})
		defer stop()
		for i := range 100 {
			l.Set(desired(t, uint64(i+1), "tcp://10.9.0.1:80,mh,10.8.0.1*"+strconv.Itoa(i+1)))
			time.Sleep(readTime / 10)
		}
		if n := len(k.reads); n < 4 || n > 7 { // they rest
			t.Errorf("%d looks in the time of 10, want about 5", n)
		}
		if s := l.Status(); s.Converged || len(s.Errors) != 1 || time.Since(s.Errors[0].Since) < 5*readTime {
			t.Errorf("status %+v, want the one error of long ago", s)
		}
		d := desired(t, 1000, "tcp://10.9.0.1:80,rr,10.8.0.1")
		l.Set(d)
		if err := l.WaitApplied(t.Context(), 1000); err != nil {
			t.Error(err)
		}
		checkTable(t, k.Kernel, d.Table)
		if s := l.Status(); s.DriftRepaired != 0 || !s.Converged {
			t.Errorf("%d repairs of what nobody has changed, converged %v", s.DriftRepaired, s.Converged)
		}
	})
}

// TestLooksTakeATenthOfTheTime at most, however short the interval is.
func TestLooksTakeATenthOfTheTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := &largeKernel{Kernel: memkernel.New(), reads: make(chan bool, 1000)}
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir, DriftInterval: time.Second})
		defer stop()
		l.Set(desired(t, 1, "tcp://10.9.0.1:80,10.8.0.1"))
		time.Sleep(40 * lookPause * readTime)
		if n := len(k.reads); n < 35 || n > 55 { // each comes up to a quarter earlier
			t.Errorf("%d looks in the time of %d", n, 40*lookPause)
		}
	})
}
