package reconcile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
)

// TestCrashes stops the loop after each number of writes, and starts the next one
// with the record and the kernel as they are then. Before each service is added it
// must be in the record on disk; in the end nothing of ours is left over, and what
// is foreign is untouched.
func TestCrashes(t *testing.T) {
	start := desired(t, 1, "tcp://10.9.0.1:80,10.8.0.1,10.8.0.2", "tcp://10.9.0.2:80,10.8.0.1", "udp://10.9.0.3:53")
	end := desired(t, 2, "tcp://10.9.0.1:80,wrr,10.8.0.2*4", "fwmark://9,10.8.0.1")
	foreign := parseService(t, "tcp://10.9.0.9:80,10.8.0.9")
	for crashAt := range 25 {
		t.Run(fmt.Sprint(crashAt), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				k := memkernel.New()
				if errs := k.ByHand().Apply(t.Context(), ipvs.Diff(ipvs.Table{}, ipvs.TableOf(foreign))); errs != nil {
					t.Fatal(errs)
				}
				writes, crash := 0, func() {}
				k.Refuse(func(op, object string) error {
					if !strings.Contains(op, "-service") && !strings.Contains(op, "-destination") || strings.HasPrefix(op, "list") {
						return nil
					}
					if writes++; writes > crashAt {
						crash()
						return syscall.EIO
					}
					if op == kernel.OpAddService {
						r, _, err := openRecord(dir)
						if key, keyErr := ipvs.ParseServiceKey(object); err != nil || keyErr != nil || !r.owned[key] {
							t.Errorf("%s is added, but not recorded: %v, %v", object, err, keyErr)
						}
					}
					return nil
				})
				c := Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir}
				for _, d := range []Desired{start, end} {
					l, err := New(c)
					if err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithCancel(t.Context())
					crash = cancel
					l.Set(d)
					done := make(chan error, 1)
					go func() { done <- l.Run(ctx) }()
					synctest.Wait()
					cancel()
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				k.Refuse(nil)
				l, stop := runLoop(t, c)
				l.Set(end)
				if err := l.WaitApplied(t.Context(), end.Revision); err != nil {
					t.Error(err)
				}
				stop()
				all := ipvs.TableOf(foreign)
				for s := range end.Table.Services() {
					all = ipvs.TableOf(append(all.Document().Services, *s)...)
				}
				checkTable(t, k, all)
				if owned := ownedBy(openTestRecord(t, dir)); len(owned) != 2 {
					t.Errorf("the record has %v in the end", owned)
				}
			})
		})
	}
}

func TestFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	synctest.Test(t, func(t *testing.T) {
		k := memkernel.New()
		h := Config{Kernel: k, Interfaces: interfaces{"eth0": 2}, DataDir: dir} // which does not exist
		l, stop := runLoop(t, h)
		l.Set(desired(t, 1, "tcp://10.9.0.1:80,10.8.0.1"))
		if err := l.WaitApplied(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "ownership record") {
			t.Errorf("without a record: %v", err)
		}
		checkTable(t, k, ipvs.Table{})
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := l.Now(t.Context()); err != nil {
			t.Errorf("with room on the disk: %v", err)
		}
		checkTable(t, k, desired(t, 1, "tcp://10.9.0.1:80,10.8.0.1").Table)

		// Full again: what is recorded still changes, and can be deleted.
		l.record.close()
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		l.Set(desired(t, 2, "tcp://10.9.0.1:80,10.8.0.1*7", "tcp://10.9.0.2:80"))
		if err := l.WaitApplied(t.Context(), 2); err == nil {
			t.Errorf("a service was added without a record")
		}
		checkTable(t, k, desired(t, 2, "tcp://10.9.0.1:80,10.8.0.1*7").Table)
		l.Set(desired(t, 3))
		synctest.Wait()
		checkTable(t, k, ipvs.Table{})
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		if err := l.Now(t.Context()); err != nil {
			t.Errorf("with room on the disk: %v", err)
		}
		stop()
		if owned := ownedBy(openTestRecord(t, dir)); len(owned) != 0 {
			t.Errorf("the record has %v in the end", owned)
		}
	})
}

func TestDamagedRecordIsAWarning(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, recordName), []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := New(Config{Kernel: memkernel.New(), DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if w := l.Status().Warnings; len(w) != 1 || !strings.Contains(w[0], "damaged") {
		t.Errorf("warnings %v", w)
	}
}
