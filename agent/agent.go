// Package agent builds the parts of one node and joins them: it turns the
// cluster's state and this node's role into what the converge loop must make of
// the kernel, and answers the API.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/fsm"
	"github.com/ipvs-ha/ipvs-ha/reconcile"
	"github.com/ipvs-ha/ipvs-ha/secret"
	"github.com/ipvs-ha/ipvs-ha/track"
	"github.com/ipvs-ha/ipvs-ha/vip"
)

// leaveTime is how long an agent whose disk stalls waits for its parts to end: the
// keeper shuts the fence and takes the VIPs away, which needs no disk.
const leaveTime = 3 * time.Second

// Options are what the command line adds to the configuration.
type Options struct {
	Logger  *slog.Logger // nil discards
	Version string       // told in status
	Dev     bool         // a kernel in memory stands in where there is no ip_vs

	// Kernel and VIPs are used instead of this host's, when set; for tests.
	Kernel reconcile.Kernel
	VIPs   Keeper
}

// Keeper is what an agent needs of *vip.Keeper.
type Keeper interface {
	Run(ctx context.Context) error
	Set(all []vip.Address, until time.Duration)
	Prepare(soon time.Duration)
	Status() vip.Status
	Changed() <-chan struct{}
	Resigned() <-chan struct{}
}

// Agent is one node. It implements api.Agent.
type Agent struct {
	cfg     configs.Config
	log     *slog.Logger
	node    *cluster.Node
	machine *fsm.Machine
	loop    *reconcile.Loop // nil on a witness
	ping    chan struct{}   // size 1: state or membership may have changed

	keeper Keeper // nil when this node takes no VIPs
	vips   atomic.Pointer[mapped]
	// pushing orders what the keeper is told.
	pushing sync.Mutex
	lease   atomic.Int64 // boot time until which this node has the lease; 0 = it has none

	inMemory bool // the kernel is one in memory, standing in

	tracker   *track.Tracker // nil on a witness
	warm      atomic.Bool    // this host's kernel knows the connections; learn writes it
	events    events
	tenures   chan cluster.Tenure        // from the cluster to watch
	roleSince atomic.Pointer[roleMoment] // nil: follow has not given the loop a role yet
	roleNoted chan struct{}              // size 1: roleSince has changed
	staging   chan struct{}              // size 1: has an element while a large write is proposed

	caughtUp atomic.Bool // the loop has been given a table
	active   atomic.Bool // this node leads, and its daemons are those of the active director
	prepared latch       // this node leads, and its sync daemons are those of the active director
}

// Run runs a node until ctx ends. It returns nil then, and an error when a part
// fails; errors.Is cluster.ErrRemoved when the node was removed from its cluster, and
// cluster.ErrDiskStalled when its disk takes no writes: then the process must end,
// since parts of the agent may still hang in a write.
// The kernel's table, its connections and its sync daemons are left as they are.
func Run(ctx context.Context, cfg configs.Config, opts Options) error {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{
		cfg: cfg, log: log, ping: make(chan struct{}, 1),
		events:  events{node: cfg.Node, log: log.With("part", "events")},
		tenures: make(chan cluster.Tenure, 64), roleNoted: make(chan struct{}, 1), staging: make(chan struct{}, 1),
	}
	a.machine = fsm.New(a.wake)
	shared, err := readSecret(cfg)
	if err != nil {
		return err
	}
	clusterConfig := a.clusterConfig()
	clusterConfig.Secret = shared
	node, err := cluster.New(clusterConfig)
	if err != nil {
		return err
	}
	a.node = node

	group, ctx := errgroup.WithContext(ctx)
	// The host is looked after until leadership is given away.
	host, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	if cfg.Role == configs.Director {
		k, closeKernel, err := a.openKernel(ctx, opts)
		if err != nil {
			return errors.Join(err, node.Close())
		}
		defer closeKernel()
		a.loop, err = reconcile.New(reconcile.Config{
			Kernel:        k,
			DataDir:       cfg.DataDir,
			Exclusive:     cfg.Ownership == configs.Exclusive,
			DriftInterval: cfg.Reconcile.Interval,
			Logger:        log.With("part", "reconcile"),
		})
		if err != nil {
			return errors.Join(err, node.Close())
		}
		if a.keeper, err = a.newKeeper(opts); err != nil {
			return errors.Join(err, node.Close())
		}
		a.tracker = a.newTracker()
		group.Go(func() error { return a.loop.Run(host) })
		group.Go(func() error { return a.tracker.Run(ctx) })
		group.Go(func() error { return a.learn(ctx) })
		if a.keeper != nil {
			group.Go(func() error { return a.keeper.Run(host) })
		}
	}
	stalled := make(chan error, 1)
	group.Go(func() error {
		defer leave()
		err := node.Run(ctx)
		if errors.Is(err, cluster.ErrDiskStalled) {
			stalled <- err
		}
		if err == nil && a.loop != nil {
			a.awaitBackup()
		}
		return err
	})
	group.Go(func() error { return a.watch(ctx, host.Done()) })
	group.Go(func() error { return a.follow(host) })
	group.Go(func() error { return api.NewServer(a, log.With("part", "api")).Run(ctx, cfg.API.Socket) })
	log.Info("started", "node", cfg.Node, "cluster", cfg.Cluster.Name, "role", cfg.Role, "id", node.ID(), "version", opts.Version)
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	select {
	case err = <-ended:
	case err = <-stalled:
		select {
		case <-ended:
		case <-time.After(leaveTime):
			log.Warn("parts of this agent hang in writes and are given up", "after", leaveTime)
		}
	}
	if err != nil {
		return fmt.Errorf("agent %s: %w", cfg.Node, err)
	}
	log.Info("stopped; what the kernel holds stays", "node", cfg.Node)
	return nil
}

// wake makes follow look again. It never blocks.
func (a *Agent) wake() {
	select {
	case a.ping <- struct{}{}:
	default:
	}
}

// Check reads what a configuration names beside itself, as Run does first.
func Check(cfg configs.Config) error {
	_, err := readSecret(cfg)
	return err
}

// readSecret returns the cluster's secret, nil when there is none.
func readSecret(cfg configs.Config) (*secret.Secret, error) {
	if cfg.Cluster.SecretFile == "" {
		return nil, nil
	}
	s, err := secret.Read(cfg.Cluster.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("cluster.secret_file: %w", err)
	}
	return s, nil
}

func (a *Agent) clusterConfig() cluster.Config {
	fitness := a.fitness
	if a.cfg.Role == configs.Witness {
		fitness = nil // cluster knows that by itself
	}
	return cluster.Config{
		Cluster:    a.cfg.Cluster.Name,
		Node:       a.cfg.Node,
		Witness:    a.cfg.Role == configs.Witness,
		DataDir:    a.cfg.DataDir,
		Address:    a.cfg.Cluster.Address,
		Port:       a.cfg.Cluster.Port,
		GossipPort: a.cfg.Cluster.GossipPort,
		Join:       a.cfg.Cluster.Join,
		Expect:     a.cfg.Cluster.Expect,
		Profile:    a.cfg.Cluster.Timings(),
		Hold:       a.cfg.Cluster.OnQuorumLoss == configs.Hold,
		FSM:        a.machine,
		Applied:    func() uint64 { return a.machine.State().Index() },
		Handler:    a.handle,
		OnChange:   a.wake,
		OnLease:    a.onLease,
		Fitness:    fitness,

		NoSuccession:  !a.cfg.Cluster.Succession,
		OnStand:       a.prepareVIPs,
		BeforeLease:   a.beforeLease,
		BeforeRelease: a.beforeRelease,
		OnTenure:      a.onTenure,

		Logger: a.log.With("part", "cluster"),
	}
}
