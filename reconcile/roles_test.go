package reconcile

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// manyServices returns n services, as parseService reads them.
func manyServices(n int) []string {
	var services []string
	for i := range n {
		services = append(services, fmt.Sprintf("tcp://10.%d.%d.1:80,10.8.0.1", 20+i/250, i%250))
	}
	return services
}

// TestRolesDoNotWaitForALargeTable moves the role while a large table is written: by
// the first repair, by a later change, and by a repair of drift.
func TestRolesDoNotWaitForALargeTable(t *testing.T) {
	large := manyServices(5 * maxBatch)
	for _, tc := range []struct {
		name  string
		begin func(t *testing.T, l *Loop, k *memkernel.Kernel)
	}{
		{"start", func(*testing.T, *Loop, *memkernel.Kernel) {}},
		{"change", func(t *testing.T, l *Loop, _ *memkernel.Kernel) {
			l.Set(desired(t, 1))
			synctest.Wait()
		}},
		{"drift", func(t *testing.T, l *Loop, k *memkernel.Kernel) {
			l.Set(desired(t, 2, large...))
			synctest.Wait()
			if err := k.ByHand().Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				k := memkernel.New()
				l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir})
				defer stop()
				tc.begin(t, l, k)

				standby, active := desired(t, 2, large...), desired(t, 2, large...)
				active.Role = syncd.Active
				var number uint64 // of active
				var seen bool
				var changes int // since it was set
				var order []string
				k.Refuse(func(op, object string) error {
					switch {
					case op == kernel.OpStartDaemon:
						order = append(order, fmt.Sprintf("%s after %d changes", strings.Fields(object)[0], changes))
					case op != kernel.OpAddService && op != kernel.OpAddDestination:
					case number == 0:
						number = l.Set(active)
					default:
						changes++
						seen = seen || l.Status().Seen >= number
					}
					return nil
				})
				l.Set(standby)
				_ = l.Now(t.Context())
				if err := l.WaitApplied(t.Context(), 2); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if want := fmt.Sprintf("master after %d changes", maxBatch-1); len(order) != 1 || order[0] != want {
					t.Errorf("daemons were started: %v, want %s", order, want)
				}
				if !seen {
					t.Error("that the role is carried out was not told while the table was written")
				}
				checkTable(t, k, active.Table)
			})
		})
	}
}

// TestTheFirstBackupComesAfterTheTable, however many batches that has: what it received
// before would stay unbound.
func TestTheFirstBackupComesAfterTheTable(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := memkernel.New()
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir})
		defer stop()
		d := desired(t, 1, manyServices(2*maxBatch)...)
		started := false
		k.Refuse(func(op, _ string) error {
			if op == kernel.OpStartDaemon {
				started = true
				checkTable(t, k, d.Table)
			}
			return nil
		})
		l.Set(d)
		synctest.Wait()
		if !started {
			t.Error("no daemon was started")
		}
	})
}

// TestYieldingBackupDoesNotWaitForALargeTable gives the role up while a kernel that takes a
// millisecond for each change gets a large table: the backup is to start when it has waited
// as long as it should, and not when all is written.
func TestYieldingBackupDoesNotWaitForALargeTable(t *testing.T) {
	large := manyServices(5 * maxBatch)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := memkernel.New()
		l, stop := runLoop(t, Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir})
		defer stop()
		active := desired(t, 1)
		active.Role = syncd.Active
		l.Set(active)
		synctest.Wait()

		standby, active := desired(t, 2, large...), desired(t, 2, large...)
		active.Role = syncd.Active
		changes, given := 0, 0
		var started []int
		k.Refuse(func(op, _ string) error {
			switch op {
			case kernel.OpStartDaemon:
				started = append(started, changes-given)
			case kernel.OpAddService, kernel.OpAddDestination:
				time.Sleep(time.Millisecond)
				if changes++; changes == 1 {
					l.Set(standby)
					given = changes
				}
			}
			return nil
		})
		l.Set(active)
		if err := l.WaitApplied(t.Context(), 2); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		// It is told of the role after one batch, and waits for less than another.
		if want := 2*maxBatch - 1; len(started) != 1 || started[0] != want {
			t.Errorf("the backup started after %v changes, want %d", started, want)
		}
	})
}
