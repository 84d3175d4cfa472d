package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ipvs-ha/ipvs-ha/boottime"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/secret"
	"github.com/ipvs-ha/ipvs-ha/timing"
)

// MaxCommand is the largest command, in bytes. It is small so that a batch of them
// passes quickly; what is larger is the proposer's to split.
const MaxCommand = ipvs.MaxCommand

const (
	maxExpect = 7  // voters that found a cluster; more only slow each write down
	maxJoin   = 64 // addresses in Config.Join
	maxName   = 63 // bytes of a cluster's or node's name
)

// A Profile is a set of timings that fit together.
type Profile = timing.Profile

// Config says who this node is and how it finds the others.
type Config struct {
	Cluster string // the cluster's name, 1 to 63 bytes; the same on all members
	Node    string // this node's name, 1 to 63 bytes, unique in the cluster
	Witness bool   // votes and keeps the log, but gives leadership away
	DataDir string // created with mode 0700 when missing; one process at a time

	Address    netip.Addr // unicast; the cluster port is bound here and others dial it
	Port       int        // TCP, 1 to 65535
	GossipPort int        // UDP and TCP, the same on all members; 0: no gossip
	Join       []string   // peers, "ip" or "ip:port"; this node may be among them

	// Expect is the number of voters that found the cluster, this node
	// included: 1 founds it alone at once, 0 never founds, only joins. At
	// most 7, and the same on all founding nodes.
	Expect  int
	Profile Profile // the zero value is "lan"; must pass its Check
	// Secret is shared by all members: it authenticates and encrypts the cluster port
	// and gossip. Nil: whoever reaches the ports is believed.
	Secret *secret.Secret
	// Hold has a leader that loses the other one of exactly two voters, both directors,
	// keep its lease for as long as it runs. With more voters it does nothing.
	Hold bool
	// NoSuccession has this node wait for raft's timers when a leader is lost, instead of
	// standing for election when its lease has ended. Safety is the same.
	NoSuccession bool

	// FSM gets the committed commands. Its Apply must return a []byte, the
	// response that Propose returns.
	FSM raft.FSM
	// Applied returns the log index of the last command that FSM has applied,
	// also after a restore. It is what ReadIndex answers.
	Applied func() uint64
	// Handler answers Call of other members (from is the caller's id). It runs
	// concurrently and must end with ctx. Nil: every call is refused.
	Handler func(ctx context.Context, from, method string, body []byte) ([]byte, error)
	// OnChange is called when State may have changed, from any goroutine. It
	// must not block. May be nil.
	OnChange func()
	// OnLease is called, many times a second on a leader, with the time since boot
	// until which this node certainly has the only lease; 0: it has none, from now on.
	// It must not block. May be nil.
	OnLease func(until time.Duration)
	// OnStand is called when this node stands for election, because no lease runs any more
	// as far as a majority of the voters knows; see State.Stands. It must not block. May be nil.
	OnStand func()
	// BeforeLease is called when this node was made leader while its predecessor still
	// has the lease, which that one gives up when this call returns, or a third of
	// Profile.Lease later, when ctx ends. May be nil.
	BeforeLease func(ctx context.Context)
	// BeforeRelease is called when this node gives its lease up before the end, after
	// OnLease(0): when it returns nil, nothing that the lease allowed goes on. On an
	// error the lease runs out instead. May be nil.
	BeforeRelease func(ctx context.Context) error
	// Fitness returns how fit this director is to be the active one. It is asked many
	// times a second and must not block. Nil: always fit.
	Fitness func() Fitness
	// OnTenure is called when this node has a lease, with how it came to, and when that
	// has ended, with how. It must not block. May be nil.
	OnTenure func(Tenure)
	// Now returns the time since boot; nil: boottime.Now.
	Now    func() time.Duration
	Logger *slog.Logger // nil discards

	writeLimit time.Duration // 0: the constant of that name
}

// withDefaults returns c validated and completed.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Cluster == "" || len(c.Cluster) > maxName {
		bad("cluster name %q: must have 1 to %d bytes", c.Cluster, maxName)
	}
	if c.Node == "" || len(c.Node) > maxName {
		bad("node name %q: must have 1 to %d bytes", c.Node, maxName)
	}
	if c.DataDir == "" {
		bad("data directory: missing")
	}
	if !c.Address.IsValid() || c.Address.IsUnspecified() || c.Address.IsMulticast() {
		bad("address %q: must be a unicast IP address of this host", c.Address)
	}
	if c.Port < 1 || c.Port > 65535 {
		bad("port %d: must be 1 to 65535", c.Port)
	}
	if c.GossipPort < 0 || c.GossipPort > 65535 || c.GossipPort == c.Port {
		bad("gossip port %d: must be 0 to 65535 and not the cluster port", c.GossipPort)
	}
	if c.Expect < 0 || c.Expect > maxExpect {
		bad("expect %d: must be 0 to %d", c.Expect, maxExpect)
	}
	if len(c.Join) > maxJoin {
		bad("join: %d addresses, at most %d", len(c.Join), maxJoin)
	}
	if c.FSM == nil {
		bad("state machine: missing")
	}
	if c.Applied == nil {
		bad("applied index of the state machine: missing")
	}
	if c.Profile == (Profile{}) {
		c.Profile, _ = timing.ByName("lan")
	}
	if err := c.Profile.Check(); err != nil {
		errs = append(errs, err)
	}
	join := make([]string, 0, len(c.Join))
	for _, peer := range c.Join {
		address, err := peerAddress(peer, c.Port)
		if err != nil {
			bad("join: %w", err)
		}
		join = append(join, address)
	}
	c.Join = join
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnChange == nil {
		c.OnChange = func() {}
	}
	if c.OnLease == nil {
		c.OnLease = func(time.Duration) {}
	}
	if c.OnTenure == nil {
		c.OnTenure = func(Tenure) {}
	}
	if c.OnStand == nil {
		c.OnStand = func() {}
	}
	if c.BeforeLease == nil {
		c.BeforeLease = func(context.Context) {}
	}
	if c.BeforeRelease == nil {
		c.BeforeRelease = func(context.Context) error { return nil }
	}
	if c.Now == nil {
		c.Now = boottime.Now
	}
	if c.writeLimit == 0 {
		c.writeLimit = writeLimit
	}
	if c.Handler == nil {
		c.Handler = func(context.Context, string, string, []byte) ([]byte, error) {
			return nil, errors.New("this node answers no requests")
		}
	}
	return c, errors.Join(errs...)
}

// advertised is the address that others dial, "ip:port".
func (c Config) advertised() string {
	return netip.AddrPortFrom(c.Address, uint16(c.Port)).String()
}

// peerAddress completes "ip" with the port and returns "ip:port" in its one form.
func peerAddress(peer string, port int) (string, error) {
	if ip, err := netip.ParseAddr(peer); err == nil {
		return netip.AddrPortFrom(ip, uint16(port)).String(), nil
	}
	address, err := netip.ParseAddrPort(peer)
	if err != nil {
		return "", fmt.Errorf("peer %q: must be IP or IP:PORT", peer)
	}
	return address.String(), nil
}

// gossipAddress is where the peer with that cluster address gossips.
func gossipAddress(address string, port int) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}
