// Package configs reads and writes the files that operators edit: the
// configuration of an agent and the table file. Every mistake in a file is
// reported at once, with its line and in the words of the file.
package configs

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipvs-ha/ipvs-ha/timing"
)

// maxFile is the largest file read, in bytes.
const maxFile = 32 << 20

// Role is what a node does in its cluster.
type Role string

// The roles.
const (
	Director Role = "director" // a load balancer
	Witness  Role = "witness"  // votes, and touches no kernel
)

// Profile names a set of timings for elections.
type Profile string

// The profiles.
const (
	Fast Profile = "fast" // one rack
	LAN  Profile = "lan"
	WAN  Profile = "wan"
)

// Ownership says what happens to virtual services in the kernel that are not in
// the table.
type Ownership string

// The kinds of ownership.
const (
	Shared    Ownership = "shared"    // they are reported and left alone
	Exclusive Ownership = "exclusive" // they are removed
)

// Fence names what keeps packets for a virtual address out of a director that does
// not own it.
type Fence string

// The fences.
const (
	NFT Fence = "nft" // an nftables table of its own
	Off Fence = "off" // none: for a moment two directors may accept packets
)

// OnQuorumLoss says what an active director does that loses its majority.
type OnQuorumLoss string

// What it does.
const (
	Release OnQuorumLoss = "release" // it gives the virtual addresses up
	Hold    OnQuorumLoss = "hold"    // with exactly two voters it keeps them
)

// Config is the configuration of one agent.
type Config struct {
	Node      string // 1..63 of a-z, 0-9, '.' and '-'
	Role      Role
	DataDir   string // absolute path
	Cluster   Cluster
	Sync      Sync
	VIP       VIP
	Track     []Tracked // at most 16
	Ownership Ownership
	Reconcile Reconcile
	API       API
}

// Cluster says how a node finds its cluster.
type Cluster struct {
	Name       string     // 1..63 of a-z, 0-9, '.' and '-'
	Address    netip.Addr // unicast; where the other nodes reach this one
	Port       int        // TCP, 1..65535
	GossipPort int        // TCP and UDP, 1..65535
	Join       []string   // each an IP address or IP:PORT of a node's cluster port
	Expect     int        // 0..7 voters that found the cluster together; 0 = only join
	Profile    Profile
	SecretFile string         // absolute path; empty: no secret
	Timing     timing.Profile // what differs from Profile; zero values do not
	// OnQuorumLoss says what the active director of exactly two voters does when it
	// loses the other one.
	OnQuorumLoss   OnQuorumLoss
	AllowTwoVoters bool // Expect may be 2
	Succession     bool // a lost leader is succeeded when its lease ends, before raft's timers
}

// Timings returns the profile with what differs from it. It is checked in a Config
// that was loaded.
func (c Cluster) Timings() timing.Profile {
	p, _ := timing.ByName(string(c.Profile)) // Load knows no others
	return p.With(c.Timing)
}

// Sync says how connection sync reaches this host.
type Sync struct {
	Interface string // at most 15 bytes; empty: no sync daemon can run here
}

// VIP says which virtual addresses this host may take, and where.
type VIP struct {
	Interface string            // at most 15 bytes; empty: this director takes none
	Networks  map[string]string // interfaces of the addresses that name a network, by ipvs.VIP.Network; at most 64
	Allow     []netip.Prefix    // masked, at most 64; empty: the subnets of the address's interface
	Fence     Fence
}

// Tracked is what a director needs to be fit to be the active one: one of these.
type Tracked struct {
	Interface string     // at most 15 bytes; must be there, up and connected
	Gateway   netip.Addr // unicast; must answer echo requests
}

// Reconcile says how the kernel is watched.
type Reconcile struct {
	Interval time.Duration // between full comparisons of kernel and table, 1 s .. 1 h
}

// API says where the agent listens for its command line.
type API struct {
	Socket string // absolute path of a unix socket, at most 107 bytes
}

// Default returns the configuration of a file that sets nothing. It is not
// complete: a node needs a name, a cluster's name and an address.
func Default() Config {
	return Config{
		Role:      Director,
		DataDir:   "/var/lib/ipvs-ha",
		Cluster:   Cluster{Port: 7400, GossipPort: 7401, Profile: LAN, OnQuorumLoss: Release, Succession: true},
		VIP:       VIP{Fence: NFT},
		Ownership: Shared,
		Reconcile: Reconcile{Interval: 10 * time.Second},
		API:       API{Socket: "/run/ipvs-ha/api.sock"},
	}
}

// Dev returns the configuration of one director alone on the loopback interface,
// with all its files below dir.
func Dev(dir string) Config {
	c := Default()
	c.Node = "dev"
	c.DataDir = filepath.Join(dir, "data")
	c.Cluster.Name = "dev"
	c.Cluster.Address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	c.Cluster.Expect = 1
	c.Sync.Interface = "lo"
	c.API.Socket = filepath.Join(dir, "api.sock")
	return c
}

// Load reads the configuration in the file path. The error joins one *Error for
// each mistake.
func Load(path string) (Config, error) {
	data, err := read(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	return parseConfig(data, path, os.Hostname)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s: larger than the limit of %d MiB", path, maxFile>>20)
	}
	return data, nil
}

func parseConfig(data []byte, name string, hostname func() (string, error)) (Config, error) {
	f, err := parse(name, data)
	if err != nil {
		return Config{}, err
	}
	c := Default()
	if f.root != nil {
		f.keys(f.root, "", c.keys())
	}
	if c.Node == "" && !f.has("node") {
		c.nameAfterHost(f, hostname)
	}
	c.check(f)
	if err := join(f.errs); err != nil {
		return Config{}, err
	}
	return c, nil
}

func (c *Config) nameAfterHost(f *file, hostname func() (string, error)) {
	host, err := hostname()
	if err != nil {
		f.failf("node", "the host name cannot be read, so the node needs a name: %v", err)
		return
	}
	c.Node = strings.ToLower(host)
	if err := checkName(c.Node); err != nil {
		f.failf("node", "the host name cannot be the node's name: %v", err)
	}
}

// check reports what the parts of c mean together.
func (c *Config) check(f *file) {
	if !f.has("cluster.name") {
		f.failf("cluster.name", "is missing; %s", required["cluster.name"])
	}
	if !f.has("cluster.address") {
		f.failf("cluster.address", "is missing; %s", required["cluster.address"])
	}
	if len(f.errs) > 0 {
		return // what was not understood is not compared
	}
	if c.Cluster.Port == c.Cluster.GossipPort {
		f.failf("cluster.gossip_port", "must differ from cluster.port, %d", c.Cluster.Port)
	}
	switch {
	case c.Cluster.Expect == 0 && len(c.Cluster.Join) == 0:
		f.failf("cluster.join", "names nobody, and cluster.expect is 0: this node would wait for ever")
	case c.Cluster.Expect == 1 && c.Role == Witness:
		f.failf("cluster.expect", "a witness cannot be a cluster alone: 1 is for a director")
	}
	if c.Cluster.Expect == 2 && !c.Cluster.AllowTwoVoters {
		f.failf("cluster.expect", "is 2, and two voters survive the loss of neither: start a third node with role: witness on any machine that both can reach and say 3, or set cluster.allow_two_voters: true")
	}
	if c.Cluster.OnQuorumLoss == Hold {
		switch {
		case c.Role == Witness:
			f.failf("cluster.on_quorum_loss", "hold is for directors: a witness has nothing to hold")
		case c.Cluster.Expect > 2:
			f.failf("cluster.on_quorum_loss", "hold needs exactly two voters, and cluster.expect is %d: the others elect another director, so that one alone must give up", c.Cluster.Expect)
		}
	}
	for _, e := range broken(c.Cluster.Timings().Check()) {
		f.failf("cluster.timing."+e.Key, "%s", e.Reason)
	}
	if c.Role == Witness && c.Sync.Interface != "" {
		f.failf("sync.interface", "is for directors: a witness runs no sync daemon")
	}
	if c.Role == Witness && c.VIP.Interface != "" {
		f.failf("vip.interface", "is for directors: a witness takes no virtual addresses")
	}
	if c.Role == Witness && len(c.Track) > 0 {
		f.failf("track", "is for directors: a witness is never the active one")
	}
	const alone = "needs vip.interface; without it this node takes no virtual addresses"
	if c.VIP.Interface == "" && len(c.VIP.Networks) > 0 {
		f.failf("vip.networks", alone)
	}
	if c.VIP.Interface == "" && len(c.VIP.Allow) > 0 {
		f.failf("vip.allow", alone)
	}
}

// broken returns the rules in an error of timing.Profile.Check.
func broken(err error) (all []*timing.Error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			var rule *timing.Error
			if errors.As(e, &rule) {
				all = append(all, rule)
			}
		}
	}
	return all
}

func checkName(s string) error {
	switch {
	case s == "" || len(s) > 63:
		return fmt.Errorf("%q has %d characters, not from 1 to 63", s, len(s))
	case strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "":
		return fmt.Errorf("%q has a character other than a-z, 0-9, '.' and '-'", s)
	}
	return nil
}

func checkUnicast(a netip.Addr) error {
	switch {
	case a.Is4In6():
		return fmt.Errorf("%s is an IPv4 address written as IPv6: write %s", a, a.Unmap())
	case a.Zone() != "":
		return fmt.Errorf("%s: an address with a zone cannot be told to other nodes", a)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is not a unicast address", a)
	}
	return nil
}

// checkAllowed refuses what cannot be a range of unicast addresses.
func checkAllowed(p netip.Prefix) error {
	switch {
	case p.Addr().Is4In6():
		return fmt.Errorf("%s is an IPv4 prefix written as IPv6", p)
	case p != p.Masked():
		return fmt.Errorf("%s has bits set beyond its length: write %s", p, p.Masked())
	case p.Addr().IsMulticast():
		return fmt.Errorf("%s holds no unicast address", p)
	}
	return nil
}

func checkInterface(s string) error {
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t") {
		return fmt.Errorf("%q is not the name of a network interface (1 to 15 characters)", s)
	}
	return nil
}

func checkPath(s string) error {
	if !filepath.IsAbs(s) {
		return fmt.Errorf("%q is not an absolute path", s)
	}
	return nil
}

func checkSocket(s string) error {
	if len(s) > 107 {
		return errors.New("a unix socket's path has at most 107 bytes")
	}
	return checkPath(s)
}
