package syncd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestWant(t *testing.T) {
	group, group6 := netip.MustParseAddr("224.0.0.90"), netip.MustParseAddr("ff02::90")
	for _, tc := range []struct {
		name string
		role Role
		sync ipvs.Sync
		want ipvs.Daemon
		run  bool
	}{
		{"none", None, ipvs.Sync{}, ipvs.Daemon{}, false},
		{"disabled", Active, ipvs.Sync{Disabled: true}, ipvs.Daemon{}, false},
		{"standby", Standby, ipvs.Sync{}, ipvs.Daemon{State: ipvs.Backup, Interface: "eth0", SyncID: 141}, true},
		{"active", Active, ipvs.Sync{ID: 7}, ipvs.Daemon{State: ipvs.Master, Interface: "eth0", SyncID: 7}, true},
		{
			"all", Active,
			ipvs.Sync{ID: 7, Group: group, Port: 9000, TTL: 3, MaxLen: 1400},
			ipvs.Daemon{State: ipvs.Master, Interface: "eth0", SyncID: 7, Group: group, Port: 9000, TTL: 3, MaxLen: 1400},
			true,
		},
		{"IPv6", Standby, ipvs.Sync{ID: 7, Group6: group6}, ipvs.Daemon{State: ipvs.Backup, Interface: "eth0", SyncID: 7, Group: group6}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			have, run := Want(tc.role, tc.sync, "lb", "eth0")
			if diff := cmp.Diff(tc.want, have, compareAddr); diff != "" || run != tc.run {
				t.Errorf("run %v, want %v (-want +got):\n%s", run, tc.run, diff)
			}
		})
	}
}

// The ids of running clusters must never change.
func TestDefaultSyncIDIsStable(t *testing.T) {
	for cluster, want := range map[string]uint8{"lb": 141, "": 2, "production": 173, "edge-1.example.org": 118} {
		if have := DefaultSyncID(cluster); have != want {
			t.Errorf("%q: %d, want %d", cluster, have, want)
		}
	}
	seen := map[uint8]bool{}
	for i := range 10_000 {
		seen[DefaultSyncID(fmt.Sprint("cluster-", i))] = true
	}
	if seen[0] || len(seen) != 255 {
		t.Errorf("%d ids in use, 0 among them: %v; want 1..255", len(seen), seen[0])
	}
}

// fakeKernel behaves like a kernel's sync daemons; it logs each start and stop.
type fakeKernel struct {
	daemons map[ipvs.DaemonState]ipvs.Daemon
	indexes map[string]int // of the interfaces
	ops     []string
	refuse  map[string]error // by op
	saved   []byte           // Starts, as JSON
	saves   int
	ignore  bool // the maxlen asked for, like an old kernel
	only    bool // it forwards nothing while a backup runs
}

func newKernel() *fakeKernel {
	return &fakeKernel{daemons: map[ipvs.DaemonState]ipvs.Daemon{}, indexes: map[string]int{"eth0": 2, "eth1": 3}, refuse: map[string]error{}}
}

func (k *fakeKernel) Index(name string) (int, error) {
	if k.indexes[name] == 0 {
		return 0, fmt.Errorf("interface %s: %w", name, os.ErrNotExist)
	}
	return k.indexes[name], k.refuse["index"]
}

func (k *fakeKernel) BackupOnly() bool { return k.only }

func (k *fakeKernel) Daemons(context.Context) ([]ipvs.Daemon, error) {
	var list []ipvs.Daemon
	for _, state := range []ipvs.DaemonState{ipvs.Master, ipvs.Backup} {
		if d, ok := k.daemons[state]; ok {
			list = append(list, d)
		}
	}
	return list, k.refuse["list"]
}

func (k *fakeKernel) do(op string) error {
	k.ops = append(k.ops, op)
	return k.refuse[op]
}

func (k *fakeKernel) StartDaemon(_ context.Context, d ipvs.Daemon) error {
	if err := k.do("start " + d.State.String()); err != nil {
		return err
	}
	if _, ok := k.daemons[d.State]; ok {
		return os.ErrExist
	}
	k.byHand(d)
	return nil
}

// byHand starts or replaces a daemon with the kernel's defaults filled in.
func (k *fakeKernel) byHand(d ipvs.Daemon) {
	if d.MaxLen == 0 || k.ignore {
		d.MaxLen = map[ipvs.DaemonState]uint16{ipvs.Master: 1472, ipvs.Backup: 8972}[d.State]
	}
	if !d.Group.IsValid() {
		d.Group = netip.MustParseAddr("224.0.0.81")
	}
	if d.Port == 0 {
		d.Port = 8848
	}
	if d.TTL == 0 {
		d.TTL = 1
	}
	k.daemons[d.State] = d
}

func (k *fakeKernel) StopDaemon(_ context.Context, state ipvs.DaemonState) error {
	if err := k.do("stop " + state.String()); err != nil {
		return err
	}
	if _, ok := k.daemons[state]; !ok {
		return os.ErrNotExist
	}
	delete(k.daemons, state)
	return nil
}

func (k *fakeKernel) save(s Starts) error {
	if err := k.refuse["save"]; err != nil {
		return err
	}
	k.saves++
	var err error
	k.saved, err = json.Marshal(s)
	return err
}

// syncer returns a Syncer as a new process would have it.
func (k *fakeKernel) syncer(t *testing.T) *Syncer {
	t.Helper()
	var starts Starts
	if k.saved != nil {
		if err := json.Unmarshal(k.saved, &starts); err != nil {
			t.Fatal(err)
		}
	}
	return New(k, k, starts, k.save)
}

// expect checks and forgets the operations.
func (k *fakeKernel) expect(t *testing.T, ops ...string) {
	t.Helper()
	if diff := cmp.Diff(strings.Join(ops, "\n"), strings.Join(k.ops, "\n")); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	k.ops = nil
}

func reconcile(t *testing.T, s *Syncer, role Role, sync ipvs.Sync) Status {
	t.Helper()
	want, run := Want(role, sync, "lb", "eth0")
	return s.Reconcile(t.Context(), want, run)
}

// settled reconciles and wants success with nothing left to do.
func settled(t *testing.T, s *Syncer, role Role, sync ipvs.Sync) {
	t.Helper()
	if status := reconcile(t, s, role, sync); status.Err != nil || !status.Again.IsZero() {
		t.Errorf("%s: error %v, again %v", role, status.Err, status.Again)
	}
}

func again(t *testing.T, s Status, want time.Duration) {
	t.Helper()
	if left := time.Until(s.Again); left != want {
		t.Errorf("again in %v, want %v", left, want)
	}
}

func TestRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		s := k.syncer(t)
		settled(t, s, Standby, ipvs.Sync{})
		k.expect(t, "start backup")
		settled(t, s, Standby, ipvs.Sync{}) // the kernel's defaults are no difference
		k.expect(t)
		if k.saves != 1 {
			t.Errorf("saved %d times, want once for a start", k.saves)
		}
		for _, to := range []struct {
			role        Role
			yields      time.Duration
			start, stop string
		}{{Active, 0, "start master", "stop backup"}, {Standby, YieldTime, "start backup", "stop master"}} {
			if to.yields > 0 {
				again(t, reconcile(t, s, to.role, ipvs.Sync{}), to.yields)
				time.Sleep(to.yields - time.Millisecond)
				again(t, reconcile(t, s, to.role, ipvs.Sync{}), time.Millisecond)
				k.expect(t)
				time.Sleep(time.Millisecond)
			}
			again(t, reconcile(t, s, to.role, ipvs.Sync{}), FlushTime-to.yields)
			k.expect(t, to.start)
			time.Sleep(FlushTime - to.yields - time.Millisecond)
			again(t, reconcile(t, s, to.role, ipvs.Sync{}), time.Millisecond)
			k.expect(t)
			time.Sleep(time.Millisecond)
			settled(t, s, to.role, ipvs.Sync{})
			k.expect(t, to.stop)
		}
	})
}

func TestBackupOnlyStopsTheBackupAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		k.only = true
		s := k.syncer(t)
		settled(t, s, Standby, ipvs.Sync{})
		settled(t, s, Active, ipvs.Sync{})
		k.expect(t, "start backup", "start master", "stop backup")
		reconcile(t, s, Standby, ipvs.Sync{})
		time.Sleep(YieldTime)
		again(t, reconcile(t, s, Standby, ipvs.Sync{}), FlushTime-YieldTime) // the master is to stop some time
		k.expect(t, "start backup")
	})
}

func TestActiveAgainBeforeTheFlushKeepsTheMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		s := k.syncer(t)
		settled(t, s, Active, ipvs.Sync{})
		reconcile(t, s, Standby, ipvs.Sync{})
		time.Sleep(time.Second)
		reconcile(t, s, Standby, ipvs.Sync{})
		k.expect(t, "start master", "start backup")
		reconcile(t, s, Active, ipvs.Sync{})
		k.expect(t)
		time.Sleep(FlushTime)
		settled(t, s, Active, ipvs.Sync{})
		k.expect(t, "stop backup")
		time.Sleep(time.Hour)
		again(t, reconcile(t, s, Standby, ipvs.Sync{}), YieldTime)
		time.Sleep(YieldTime)
		again(t, reconcile(t, s, Standby, ipvs.Sync{}), FlushTime-YieldTime) // the whole of it
		k.expect(t, "start backup")
	})
}

// TestActiveAgainBeforeTheBackup: what a role that did not last left undone is no business
// of the next.
func TestActiveAgainBeforeTheBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		s := k.syncer(t)
		settled(t, s, Active, ipvs.Sync{})
		reconcile(t, s, Standby, ipvs.Sync{})
		time.Sleep(YieldTime / 2)
		settled(t, s, Active, ipvs.Sync{})
		k.expect(t, "start master")
		again(t, reconcile(t, s, Standby, ipvs.Sync{}), YieldTime)
	})
}

func TestNoneStopsBothAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		s := k.syncer(t)
		settled(t, s, Active, ipvs.Sync{})
		reconcile(t, s, Standby, ipvs.Sync{})
		time.Sleep(YieldTime)
		reconcile(t, s, Standby, ipvs.Sync{})
		k.ops = nil
		settled(t, s, Standby, ipvs.Sync{Disabled: true})
		k.expect(t, "stop backup", "stop master")
		settled(t, s, None, ipvs.Sync{})
		k.expect(t)
	})
}

func TestRestarts(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*fakeKernel)
		sync   ipvs.Sync
		ops    []string
	}{
		{name: "nothing changed"},
		{"stopped by hand", func(k *fakeKernel) { delete(k.daemons, ipvs.Backup) }, ipvs.Sync{}, []string{"start backup"}},
		{"other id by hand", func(k *fakeKernel) {
			k.byHand(ipvs.Daemon{State: ipvs.Backup, Interface: "eth0", SyncID: 1})
		}, ipvs.Sync{}, []string{"stop backup", "start backup"}},
		{"other maxlen by hand where ours is the default", func(k *fakeKernel) {
			k.byHand(ipvs.Daemon{State: ipvs.Backup, Interface: "eth0", SyncID: 141, MaxLen: 1024})
		}, ipvs.Sync{}, []string{"stop backup", "start backup"}},
		{"interface recreated", func(k *fakeKernel) { k.indexes["eth0"] = 9 }, ipvs.Sync{}, []string{"stop backup", "start backup"}},
		{"id set", func(*fakeKernel) {}, ipvs.Sync{ID: 9}, []string{"stop backup", "start backup"}},
		{"maxlen set to what is the default here", func(*fakeKernel) {}, ipvs.Sync{MaxLen: 8972}, []string{"stop backup", "start backup"}},
	} {
		for _, process := range []string{"same process", "next process"} {
			t.Run(tc.name+", "+process, func(t *testing.T) {
				k := newKernel()
				s := k.syncer(t)
				settled(t, s, Standby, ipvs.Sync{})
				k.ops = nil
				if tc.change != nil {
					tc.change(k)
				}
				if process == "next process" {
					s = k.syncer(t)
				}
				settled(t, s, Standby, tc.sync)
				k.expect(t, tc.ops...)
				settled(t, s, Standby, tc.sync)
				k.expect(t)
			})
		}
	}
}

func TestLeftOverWithoutRecordIsReplaced(t *testing.T) {
	k := newKernel()
	k.byHand(ipvs.Daemon{State: ipvs.Backup, Interface: "eth0", SyncID: 141})
	s := k.syncer(t)
	settled(t, s, Standby, ipvs.Sync{})
	k.expect(t, "stop backup", "start backup")
}

func TestErrors(t *testing.T) {
	refused := errors.New("refused")
	for _, tc := range []struct {
		name    string
		prepare func(*fakeKernel)
		role    Role
		ops     []string
		message string
	}{
		{"no kernel", func(k *fakeKernel) { k.refuse["list"] = refused }, Active, nil, "list the sync daemons"},
		{"no interface", func(k *fakeKernel) { delete(k.indexes, "eth0") }, Standby, nil, "there is no interface eth0"},
		{"lookup fails", func(k *fakeKernel) { k.refuse["index"] = refused }, Standby, nil, "look up interface eth0"},
		{"start refused", func(k *fakeKernel) { k.refuse["start backup"] = refused }, Standby, []string{"start backup"}, "start the backup daemon on eth0: refused"},
		{"a failing master does not keep the backup", func(k *fakeKernel) {
			k.refuse["start master"] = refused
			k.only = true
			k.byHand(ipvs.Daemon{State: ipvs.Backup, Interface: "eth0", SyncID: 141})
		}, Active, []string{"start master", "stop backup"}, "start the master daemon"},
		{"stop refused", func(k *fakeKernel) {
			k.only = true
			k.refuse["stop backup"] = refused
			k.byHand(ipvs.Daemon{State: ipvs.Backup, Interface: "eth0", SyncID: 141})
		}, Active, []string{"start master", "stop backup"}, "stop the backup daemon: refused"},
		{"an old kernel ignores the maxlen", func(k *fakeKernel) { k.ignore = true }, Active, []string{"start master"}, "other settings"},
		{"record not saved", func(k *fakeKernel) { k.refuse["save"] = refused }, Standby, []string{"start backup"}, "record the sync daemons"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newKernel()
			tc.prepare(k)
			s := k.syncer(t)
			sync := ipvs.Sync{}
			if k.ignore {
				sync.MaxLen = 1400
			}
			status := reconcile(t, s, tc.role, sync)
			if status.Err == nil || !strings.Contains(status.Err.Error(), tc.message) {
				t.Errorf("error %v, want %q", status.Err, tc.message)
			}
			k.expect(t, tc.ops...)

			// All is well again: the next round finishes the work.
			maps.DeleteFunc(k.refuse, func(string, error) bool { return true })
			k.indexes["eth0"], k.ignore = 2, false
			settled(t, s, tc.role, sync)
			want, _ := Want(tc.role, sync, "lb", "eth0")
			if d, ok := k.daemons[want.State]; !ok || !honours(d, want) || len(k.daemons) != 1 {
				t.Errorf("daemons %+v, want only %+v", k.daemons, want)
			}
			k.ops = nil
			settled(t, k.syncer(t), tc.role, sync) // saved, so the next process adopts it
			k.expect(t)
		})
	}
	t.Run("no interface configured", func(t *testing.T) {
		want, run := Want(Standby, ipvs.Sync{}, "lb", "")
		k := newKernel()
		status := k.syncer(t).Reconcile(t.Context(), want, run)
		if status.Err == nil || !strings.Contains(status.Err.Error(), "no sync interface is configured") {
			t.Errorf("error %v", status.Err)
		}
		k.expect(t)
	})
}

func TestARaceWithAHandIsWon(t *testing.T) {
	k := newKernel()
	faster := &hasty{fakeKernel: k}
	status := New(faster, k, nil, k.save).Reconcile(t.Context(), ipvs.Daemon{State: ipvs.Master, Interface: "eth0", SyncID: 7}, true)
	if status.Err != nil || k.daemons[ipvs.Master].SyncID != 7 {
		t.Errorf("error %v, daemons %+v", status.Err, k.daemons)
	}
	k.expect(t, "start master", "stop master", "start master")
}

// hasty is a kernel where somebody starts a daemon just before us, once.
type hasty struct {
	*fakeKernel
	done bool
}

func (h *hasty) StartDaemon(ctx context.Context, d ipvs.Daemon) error {
	if !h.done {
		h.done = true
		h.byHand(ipvs.Daemon{State: d.State, Interface: "eth1", SyncID: 99})
	}
	return h.fakeKernel.StartDaemon(ctx, d)
}

func TestHost(t *testing.T) {
	if index, err := (Host{}).Index("lo"); err != nil || index <= 0 {
		t.Errorf("lo has index %d, error %v", index, err)
	}
	if _, err := (Host{}).Index("no-such-iface"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing interface: %v", err)
	}
}
