package syncd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// FlushTime is how long the daemon of a former role runs on. The kernel of a former
// master holds updates back for up to 2 s, looks once a second, and throws away what is
// queued when the daemon stops (net/netfilter/ipvs/ip_vs_sync.c). The backup of the new
// master is to hear them.
const FlushTime = 3 * time.Second

// YieldTime is how long a backup waits that takes over from a master. To start it, the
// kernel holds the lock of all interfaces and addresses for as long as a new thread takes
// to come up (start_sync_thread holds RTNL): the VIPs are to be taken away first. It
// misses of the new master's messages those that are full by then, of some 25 connections
// each; the others are sent when they are 2 s old.
const YieldTime = 100 * time.Millisecond

// Kernel is what a Syncer needs of a kernel.
type Kernel interface {
	// Daemons returns the running daemons.
	Daemons(ctx context.Context) ([]ipvs.Daemon, error)
	// StartDaemon starts a daemon. The error matches os.ErrExist when one of the
	// same state runs, with whatever settings.
	StartDaemon(ctx context.Context, d ipvs.Daemon) error
	// StopDaemon stops the daemon of a state. The error matches os.ErrNotExist when
	// none runs.
	StopDaemon(ctx context.Context, state ipvs.DaemonState) error
}

// Interfaces is what a Syncer asks of the host.
type Interfaces interface {
	// Index returns the index of an interface. The error matches os.ErrNotExist when
	// there is none of that name.
	Index(name string) (int, error)
	// BackupOnly reports whether the kernel forwards nothing while a backup daemon
	// runs: sysctl net.ipv4.vs.backup_only.
	BackupOnly() bool
}

// Start describes a daemon that a Syncer started. Only a daemon that still fits it
// is left running, since two things cannot be read from a kernel: which settings
// were chosen and which were defaults; and whether the interface is still the one
// that the daemon is bound to. When that was deleted and created again the daemon
// is listed as before, but deaf.
type Start struct {
	Index    int         `json:"index"`    // of the interface
	Wanted   ipvs.Daemon `json:"wanted"`   // as asked for
	Reported ipvs.Daemon `json:"reported"` // as the kernel listed it afterwards
}

// Starts are the daemons that were started, by state. They outlive the process, so
// that the next one can adopt the daemons.
type Starts map[ipvs.DaemonState]Start

// Status is the outcome of Reconcile.
type Status struct {
	Daemons []ipvs.Daemon // as the kernel listed them last
	Started int           // daemons started
	Stopped int           // daemons stopped
	Again   time.Time     // when Reconcile must be called again though nothing changed; zero = need not
	Err     error         // why the daemons are not as wanted; nil = they are, or will be at Again
}

// Syncer makes a kernel run the daemons that are wanted. It is for one goroutine.
type Syncer struct {
	kernel     Kernel
	interfaces Interfaces
	starts     Starts
	save       func(Starts) error
	unsaved    bool                           // starts differs from what was saved last
	stopAt     map[ipvs.DaemonState]time.Time // when the daemon of a former role is to stop
	backupAt   time.Time                      // no backup is started before; zero: it need not wait
	last       ipvs.DaemonState               // what was wanted at the last call; 0 = none, or there was none
}

// New returns a Syncer. starts are those saved last, by this process or by a
// former one; save stores them durably. The Syncer owns starts.
func New(kernel Kernel, interfaces Interfaces, starts Starts, save func(Starts) error) *Syncer {
	if starts == nil {
		starts = Starts{}
	}
	return &Syncer{kernel: kernel, interfaces: interfaces, starts: starts, save: save, stopAt: map[ipvs.DaemonState]time.Time{}}
}

// Reconcile makes the kernel run want and no other daemon; with run false, none.
// It starts before it stops: a backup YieldTime after the role has changed. The daemon of
// the former role goes FlushTime after that change, but a backup at once where the
// master's kernel would not forward beside it. A failing start does not hold up the stop.
// It can be called at any time with any values.
func (s *Syncer) Reconcile(ctx context.Context, want ipvs.Daemon, run bool) Status {
	var status Status
	if status.Err = s.list(ctx, &status); status.Err != nil {
		return status
	}
	var errs []error
	if run && !s.yields(want.State, &status) {
		errs = append(errs, s.ensure(ctx, want, &status))
	}
	for _, state := range []ipvs.DaemonState{ipvs.Backup, ipvs.Master} {
		if _, runs := status.running(state); !runs || run && state == want.State {
			delete(s.stopAt, state)
			continue
		}
		if run && !s.flushed(state, want.State) {
			status.again(s.stopAt[state])
			continue
		}
		errs = append(errs, s.stop(ctx, state, &status))
	}
	if s.last = want.State; !run {
		s.last = 0
	}
	if s.unsaved {
		if err := s.save(s.starts); err != nil {
			errs = append(errs, fmt.Errorf("record the sync daemons: %w", err))
		} else {
			s.unsaved = false
		}
	}
	status.Err = errors.Join(errs...)
	return status
}

// list reads the running daemons into status.
func (s *Syncer) list(ctx context.Context, status *Status) error {
	daemons, err := s.kernel.Daemons(ctx)
	if err != nil {
		return fmt.Errorf("list the sync daemons: %w", err)
	}
	status.Daemons = daemons
	return nil
}

// running returns the daemon of a state as it was listed last.
func (s *Status) running(state ipvs.DaemonState) (ipvs.Daemon, bool) {
	for _, d := range s.Daemons {
		if d.State == state {
			return d, true
		}
	}
	return ipvs.Daemon{}, false
}

// again asks for a call at a time, unless there is to be one before.
func (s *Status) again(at time.Time) {
	if s.Again.IsZero() || at.Before(s.Again) {
		s.Again = at
	}
}

// yields reports whether the daemon that is wanted is a backup that is to wait.
func (s *Syncer) yields(wanted ipvs.DaemonState, status *Status) bool {
	if _, runs := status.running(wanted); runs || wanted != ipvs.Backup {
		s.backupAt = time.Time{}
		return false
	}
	if s.last == ipvs.Master {
		s.backupAt = time.Now().Add(YieldTime)
	}
	if !time.Now().Before(s.backupAt) {
		return false
	}
	status.again(s.backupAt)
	return true
}

// flushed reports whether the daemon of a former role may be stopped. A backup that
// somebody started beside a master is of no role.
func (s *Syncer) flushed(state, wanted ipvs.DaemonState) bool {
	at := s.stopAt[state]
	if state == ipvs.Backup && (at.IsZero() && s.last == wanted || s.interfaces.BackupOnly()) {
		return true
	}
	if at.IsZero() {
		s.stopAt[state] = time.Now().Add(FlushTime)
	}
	return !time.Now().Before(s.stopAt[state])
}

// ensure makes the kernel run want.
func (s *Syncer) ensure(ctx context.Context, want ipvs.Daemon, status *Status) error {
	if want.Interface == "" {
		return fmt.Errorf("start the %s daemon: no sync interface is configured on this node", want.State)
	}
	// Read before the start: when the interface is replaced in between, the daemon
	// counts as bound to the old one and is started again.
	index, err := s.interfaces.Index(want.Interface)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start the %s daemon: there is no interface %s: %w", want.State, want.Interface, err)
	} else if err != nil {
		return fmt.Errorf("start the %s daemon: look up interface %s: %w", want.State, want.Interface, err)
	}
	if current, runs := status.running(want.State); runs {
		if s.starts[want.State] == (Start{Index: index, Wanted: want, Reported: current}) {
			return nil
		}
		if err := s.stop(ctx, want.State, status); err != nil {
			return err
		}
	}
	err = s.kernel.StartDaemon(ctx, want)
	if errors.Is(err, os.ErrExist) { // somebody was faster
		if err := s.stop(ctx, want.State, status); err != nil {
			return err
		}
		err = s.kernel.StartDaemon(ctx, want)
	}
	if err != nil {
		return fmt.Errorf("start the %s daemon on %s: %w", want.State, want.Interface, err)
	}
	status.Started++
	return s.confirm(ctx, want, index, status)
}

// confirm reads the started daemon back and remembers it.
func (s *Syncer) confirm(ctx context.Context, want ipvs.Daemon, index int, status *Status) error {
	if err := s.list(ctx, status); err != nil {
		return err
	}
	reported, runs := status.running(want.State)
	if !runs {
		return fmt.Errorf("the %s daemon on %s was started, but does not run", want.State, want.Interface)
	}
	if !honours(reported, want) {
		return fmt.Errorf("the %s daemon was started with other settings than asked for: it has %+v, want %+v", want.State, reported, want)
	}
	s.starts[want.State] = Start{Index: index, Wanted: want, Reported: reported}
	s.unsaved = true
	return nil
}

// stop stops the daemon of a state and looks whether it is gone.
func (s *Syncer) stop(ctx context.Context, state ipvs.DaemonState, status *Status) error {
	if err := s.kernel.StopDaemon(ctx, state); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stop the %s daemon: %w", state, err)
	}
	if err := s.list(ctx, status); err != nil {
		return err
	}
	if _, runs := status.running(state); runs {
		return fmt.Errorf("the %s daemon was stopped, but still runs", state)
	}
	status.Stopped++
	return nil
}

// honours reports whether a daemon has the settings that want asks for; what want
// leaves zero is the kernel's choice.
func honours(d, want ipvs.Daemon) bool {
	return d.State == want.State && d.Interface == want.Interface && d.SyncID == want.SyncID &&
		(want.MaxLen == 0 || d.MaxLen == want.MaxLen) &&
		(!want.Group.IsValid() || d.Group == want.Group) &&
		(want.Port == 0 || d.Port == want.Port) &&
		(want.TTL == 0 || d.TTL == want.TTL)
}
