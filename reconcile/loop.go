package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ipvs-ha/ipvs-ha/fault"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// Kernel is what the loop needs of a kernel. Errors of changes match os.ErrExist
// when what is added is there and os.ErrNotExist when what is set or deleted is
// not.
type Kernel interface {
	// Table returns all services with their destinations. It need not be a snapshot, nor
	// rest when it is to.
	Table(ctx context.Context, opts ...kernel.TableOption) (ipvs.Table, error)
	// Apply carries out changes of services and destinations in order. It goes on
	// after a failure, and returns one error for each change, or nil when none failed.
	Apply(ctx context.Context, changes []ipvs.Change) []error
	// Timeouts returns the connection timeouts.
	Timeouts(ctx context.Context) (ipvs.Timeouts, error)
	// SetTimeouts sets the timeouts that are not zero.
	SetTimeouts(ctx context.Context, t ipvs.Timeouts) error
	syncd.Kernel
}

// Desired is what this host's kernel must be like.
type Desired struct {
	Table     ipvs.Table
	Revision  uint64 // of Table
	Role      syncd.Role
	Interface string // for the sync daemons; empty is an error while sync is enabled
	Cluster   string // name, from which the default sync id is derived
}

// DefaultDriftInterval is the longest time between two looks at the whole kernel.
const DefaultDriftInterval = 10 * time.Second

// Config says what a Loop works on.
type Config struct {
	Kernel        Kernel
	Interfaces    syncd.Interfaces // nil = the host's
	DataDir       string           // for the ownership record; must exist
	Exclusive     bool             // remove foreign services
	DriftInterval time.Duration    // 0 = DefaultDriftInterval; each round comes up to a quarter earlier
	Logger        *slog.Logger     // nil = discard
}

// Loop makes one kernel equal to the newest Desired. Run is the only writer of the
// kernel and of the ownership record; the other methods are safe for concurrent
// use.
type Loop struct {
	kernel    Kernel
	exclusive bool
	interval  time.Duration
	spread    func(time.Duration) time.Duration // shortens by up to a quarter, so that hosts do not act in step
	log       *slog.Logger
	pingC     chan struct{}

	// Owned by Run.
	record   *record
	syncer   *syncd.Syncer
	rounds   rounds
	believed believed
	drifted  int            // objects repaired in this round
	looking  *look          // under way; nil = none
	pending  bool           // a look is to begin as soon as none is under way
	doubts   doubts         // for the next look
	readers  sync.WaitGroup // those who look

	mu         sync.Mutex
	desired    *Desired // the newest; nil before the first Set
	asked      uint64   // how often Set was called
	fullWanted uint64   // full rounds asked for by Now
	fullDone   uint64   // those of fullWanted that are done
	status     Status
	tried      uint64                   // revision of the last table that was tried
	refused    []refusal                // what that attempt left undone, all of it
	shown      []refusal                // what status.Errors is made of, beside the daemons
	carried    uint64                   // while a look is to come, revision of the table that is carried out but for open; else 0
	open       map[ipvs.ServiceKey]bool // the services of which it is to tell
	changed    chan struct{}            // closed when what is above changes
}

// New opens the ownership record and returns a loop that has touched nothing else
// yet. A damaged record is no error: it is set aside, logged, and named in
// Status.Warnings.
func New(c Config) (*Loop, error) {
	if c.Interfaces == nil {
		c.Interfaces = syncd.Host{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.DriftInterval == 0 {
		c.DriftInterval = DefaultDriftInterval
	}
	record, warning, err := openRecord(c.DataDir)
	if err != nil {
		return nil, err
	}
	l := &Loop{
		kernel: c.Kernel, exclusive: c.Exclusive, interval: c.DriftInterval, log: c.Logger,
		spread: func(d time.Duration) time.Duration { return d - rand.N(d/4+1) },
		pingC:  make(chan struct{}, 1), record: record, changed: make(chan struct{}),
		believed: believed{made: written{}, failing: map[ipvs.ServiceKey]bool{}, undone: undone{}},
		syncer:   syncd.New(c.Kernel, c.Interfaces, record.starts, record.saveStarts),
	}
	if warning != nil {
		l.log.Error("ownership record", "error", warning)
		l.status.Warnings = []string{warning.Error()}
	}
	return l, nil
}

// Set makes d the desired value; the newest wins. It does not block. Before the
// first Set the loop touches nothing. When Status.Seen is at least the number that
// Set returns, what could be done for the role of d, or of a newer value, is done.
func (l *Loop) Set(d Desired) uint64 {
	l.mu.Lock()
	defer l.ping()
	defer l.mu.Unlock()
	l.desired = &d
	l.asked++
	return l.asked
}

// Now has the whole kernel read and repaired, and waits for that. The error lists
// what could not be made as desired.
func (l *Loop) Now(ctx context.Context) error {
	l.mu.Lock()
	if l.desired == nil {
		l.mu.Unlock()
		return errors.New("nothing is known to reconcile with: this node has not caught up with a leader since it started")
	}
	l.fullWanted++
	ticket := l.fullWanted
	l.mu.Unlock()
	l.ping()
	return l.wait(ctx, "wait for the kernel to be reconciled", func() (bool, error) {
		return l.fullDone >= ticket, fault.Join(l.status.Errors, MaxListed, l.status.ErrorCount)
	})
}

func (l *Loop) ping() {
	select {
	case l.pingC <- struct{}{}:
	default:
	}
}

// Run reconciles until ctx is done, and then returns nil with the kernel left as
// it is. It may be called once.
func (l *Loop) Run(ctx context.Context) error {
	defer l.record.close()
	defer l.readers.Wait()
	defer l.forget()
	for {
		var found *look
		timer := time.NewTimer(time.Until(l.rounds.next()))
		select {
		case <-ctx.Done():
		case <-l.lookedAside():
			found, l.looking = l.looking, nil
		case <-l.pingC:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
		l.mu.Lock()
		desired, number, ticket, asked := l.desired, l.asked, l.fullWanted, l.fullWanted > l.fullDone
		l.mu.Unlock()
		if desired == nil {
			continue
		}
		outcome := l.round(ctx, *desired, found, asked, ticket)
		if ctx.Err() != nil {
			return nil // the round was interrupted, its outcome says nothing
		}
		if l.publish(desired.Revision, number, outcome) && l.looking == nil {
			l.ping()
		}
	}
}
