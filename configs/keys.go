package configs

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/timing"
)

// keys are the keys of the configuration file. docs/configuration.md is made from
// them, and reference.yaml is compared with them.
func (c *Config) keys() []key {
	return []key{
		{"node", text(&c.Node, checkName), "the host name", "This node's name. 1 to 63 of a-z, 0-9, `.` and `-`; unique in the cluster."},
		{"role", word(&c.Role, Director, Witness), "director", "`director`: a load balancer. `witness`: votes, so that two directors can survive the loss of one; touches no kernel and needs no root."},
		{"data_dir", text(&c.DataDir, checkPath), "/var/lib/ipvs-ha", "The node's identity, its log, and the record of what it owns in the kernel. An empty directory is a new node."},
		{"cluster.name", text(&c.Cluster.Name, checkName), "", "The cluster's name, the same on all nodes. The default sync id is derived from it. 1 to 63 of a-z, 0-9, `.` and `-`."},
		{"cluster.address", address(&c.Cluster.Address, checkUnicast), "", "This host's own address, IPv4 or IPv6: the node listens on it and the others reach it there."},
		{"cluster.port", number(&c.Cluster.Port, 1, 65535), "7400", "TCP port of consensus and forwarded requests."},
		{"cluster.gossip_port", number(&c.Cluster.GossipPort, 1, 65535), "7401", "TCP and UDP port over which nodes find one another."},
		{"cluster.join", list(c.joinItem), "[]", "Addresses, or ADDRESS:PORT with the other node's `cluster.port`, of some other nodes. May name all nodes, this one too."},
		{"cluster.expect", number(&c.Cluster.Expect, 0, 7), "0", "How many nodes, witnesses included, found the cluster together when none of them has any state. 1: this director alone. 0: never found, only join."},
		{"cluster.profile", word(&c.Cluster.Profile, Fast, LAN, WAN), "lan", "Timings of elections: `fast` for one rack, `lan`, or `wan`. The same on all nodes."},
		{"cluster.on_quorum_loss", word(&c.Cluster.OnQuorumLoss, Release, Hold), "release", "What the active director does when it loses the majority. `release`: it gives the virtual addresses up. `hold`: it keeps them, where that is safe: with exactly two voters, both directors. When it is lost itself, nobody has them then."},
		{"cluster.allow_two_voters", boolean(&c.Cluster.AllowTwoVoters), "false", "`true`: `cluster.expect` may be 2. Such a cluster survives the loss of neither; a witness as third node is better."},
		{"cluster.succession", boolean(&c.Cluster.Succession), "true", "`true`: when the active director is lost, the next one stands for election as soon as the lease has ended. `false`: this node waits for `timing.heartbeat` or up to twice as long, as raft does by itself; a failover then takes two to four times as long, and is as safe."},
		{"cluster.secret_file", text(&c.Cluster.SecretFile, checkPath), "none", "A file with the secret that all nodes share: 32 printable characters or more, on one line. It authenticates and encrypts the cluster port and gossip. Nobody but its owner and group may have access to the file. A second line is accepted too, so that a secret can be [replaced](security.md#replacing-the-secret)."},
		{"cluster.timing.lease", duration(&c.Cluster.Timing.Lease, timing.MinLease, timing.MaxLease), "the profile's", "How long a leader certainly has the only lease after a majority has granted that; it asks six times as often. 65ms to 10s. The same on all nodes, like all of `cluster.timing`."},
		{"cluster.timing.heartbeat", duration(&c.Cluster.Timing.Heartbeat, time.Millisecond, maxTiming), "the profile's", "How long a follower that hears nothing waits before raft itself calls an election. At least 2.3 times `lease`."},
		{"cluster.timing.election", duration(&c.Cluster.Timing.Election, time.Millisecond, maxTiming), "the profile's", "How long an election may take before the next one. At least `heartbeat`."},
		{"cluster.timing.leader_lease", duration(&c.Cluster.Timing.LeaderLease, time.Millisecond, maxTiming), "the profile's", "How long a leader that no majority answers leads on. 2/5 of `heartbeat` to 1.5 times `lease`."},
		{"cluster.timing.stagger", duration(&c.Cluster.Timing.Stagger, time.Millisecond, timing.MaxLease), "the profile's", "How long the second in rank waits for the first when a leader is lost. At most `lease`."},
		{"cluster.timing.transport", duration(&c.Cluster.Timing.Transport, time.Millisecond, maxTiming), "the profile's", "How long one message of raft may take. Above `lease`."},
		{"cluster.timing.commit", duration(&c.Cluster.Timing.Commit, time.Millisecond, maxTiming), "the profile's", "How long a leader waits before it tells its followers once more what is committed: it tells them at once too, but that message may be lost. 1ms to `heartbeat`."},
		{"sync.interface", text(&c.Sync.Interface, checkInterface), "none", "The interface over which the kernel's sync daemons exchange connections. Without one this director runs no sync daemon, says so in its status, and is not eligible to be the active one while the table has sync enabled, as it has by default; `sync: {enabled: false}` in the table, if connections are not to be synchronised."},
		{"vip.interface", text(&c.VIP.Interface, checkInterface), "none", "The interface on which this director takes virtual addresses. Without one it takes none, says so in its status when the table has any, and is not eligible to be the active one when the table lists them (`vips`)."},
		{"vip.networks", entries(c.network), "{}", "Interfaces of the virtual addresses that name a network, like `{inside: eth1}`. An address whose network is not here cannot be taken."},
		{"vip.allow", list(c.allowed), "[]", "Prefixes in which virtual addresses may be taken, like `[10.9.0.0/24]`; all others are refused, whatever the table says. `[]`: the subnets of the interface where the address belongs."},
		{"vip.fence", word(&c.VIP.Fence, NFT, Off), "nft", "`nft`: nftables drops the packets for virtual addresses while this director does not own them. `off`: nothing does, and in a failover two directors may accept packets for a moment."},
		{"track", list(c.tracked), "[]", "What this director needs to be fit to be the active one, like `[{interface: eth1}, {gateway: 10.9.0.1}]`; at most 16. An interface must be there, up and connected; a gateway must answer echo requests (pings), one a second: three without an answer in a row count."},
		{"ownership", word(&c.Ownership, Shared, Exclusive), "shared", "What happens to virtual services in the kernel that are not in the table. `shared`: reported, never touched. `exclusive`: removed."},
		{"reconcile.interval", duration(&c.Reconcile.Interval, time.Second, time.Hour), "10s", "How often the whole kernel table is compared with the cluster's and repaired. 1s to 1h; spread by chance, so that nodes do not do it together. Less often when it takes more than a tenth of that time, as with 100,000 destinations."},
		{"api.socket", text(&c.API.Socket, checkSocket), "/run/ipvs-ha/api.sock", "The unix socket of the API. Belongs to root and the group `ipvs-ha` when there is one; mode 0660."},
	}
}

// maxTiming bounds the timings that follow from the lease.
const maxTiming = time.Minute

// maxItems is how many networks or prefixes, or addresses to join, may be listed.
const maxItems = 64

func (c *Config) network(name string) reader {
	return func(f *file, path string, n *yaml.Node) {
		var to string
		text(&to, checkInterface)(f, path, n)
		if err := ipvs.CheckNetwork(name); err != nil {
			f.failAt(n, path, err.Error())
		}
		if c.VIP.Networks == nil {
			c.VIP.Networks = map[string]string{}
		}
		c.VIP.Networks[name] = to
		if len(c.VIP.Networks) == maxItems+1 {
			f.failAt(n, path, fmt.Sprintf("more than %d networks", maxItems))
		}
	}
}

func (c *Config) allowed(i int) reader {
	return func(f *file, path string, n *yaml.Node) {
		if i >= maxItems {
			f.failAt(n, path, fmt.Sprintf("more than %d prefixes", maxItems))
			return
		}
		var p netip.Prefix
		prefix(&p, checkAllowed)(f, path, n)
		c.VIP.Allow = append(c.VIP.Allow, p)
	}
}

// maxTracked is how many interfaces and gateways may be tracked.
const maxTracked = 16

func (c *Config) tracked(i int) reader {
	return func(f *file, path string, n *yaml.Node) {
		if i >= maxTracked {
			f.failAt(n, path, fmt.Sprintf("more than %d interfaces and gateways", maxTracked))
			return
		}
		var t Tracked
		before := len(f.errs)
		f.keys(n, path, []key{
			{name: "interface", read: text(&t.Interface, checkInterface)},
			{name: "gateway", read: address(&t.Gateway, checkUnicast)},
		})
		if len(f.errs) == before && (t.Interface == "") != t.Gateway.IsValid() {
			f.failAt(n, path, "want either interface or gateway")
		}
		c.Track = append(c.Track, t)
	}
}

func (c *Config) joinItem(i int) reader {
	return func(f *file, path string, n *yaml.Node) {
		if i >= maxItems {
			f.failAt(n, path, fmt.Sprintf("more than %d addresses", maxItems))
			return
		}
		scalar(func(s string) error {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				ap, err := ipvs.ParseAddrPort(s)
				switch {
				case err != nil && strings.Contains(s, ":"):
					return err
				case err != nil:
					return fmt.Errorf("%q is not an IP address or ADDRESS:PORT, and host names are not accepted", s)
				case ap.Port() == 0:
					return fmt.Errorf("%q: port 0 is not from 1 to 65535", s)
				}
				addr = ap.Addr()
			}
			c.Cluster.Join = append(c.Cluster.Join, s)
			return checkUnicast(addr)
		})(f, path, n)
	}
}
