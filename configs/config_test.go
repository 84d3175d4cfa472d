package configs

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/timing"
)

var update = flag.Bool("update", false, "rewrite the generated part of docs/configuration.md")

var compareAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

const minimal = "cluster: {name: lb, address: 10.9.0.11, expect: 1}\n"

func host(name string) func() (string, error) {
	return func() (string, error) { return name, nil }
}

func TestConfigDefaults(t *testing.T) {
	got, err := parseConfig([]byte(minimal), "c.yaml", host("D1.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Node: "d1.example.org", Role: Director, DataDir: "/var/lib/ipvs-ha",
		Cluster: Cluster{
			Name: "lb", Address: netip.MustParseAddr("10.9.0.11"), Port: 7400, GossipPort: 7401, Expect: 1, Profile: LAN, OnQuorumLoss: Release, Succession: true,
		},
		VIP:       VIP{Fence: "nft"},
		Ownership: Shared,
		Reconcile: Reconcile{Interval: 10 * time.Second},
		API:       API{Socket: "/run/ipvs-ha/api.sock"},
	}
	if diff := cmp.Diff(want, got, compareAddr); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestConfigEveryKey(t *testing.T) {
	got, err := parseConfig([]byte(`
node: d2
role: director
data_dir: /srv/lb
cluster: {name: west, address: "2001:db8::2", port: 1, gossip_port: 65535, join: [10.9.0.11, "10.9.0.12:7500", "[2001:db8::3]:7400"], expect: 2, profile: wan, secret_file: /etc/s, timing: {lease: 1s, heartbeat: 3s, election: 4s, leader_lease: 1250ms, stagger: 90ms, transport: 2s, commit: 30ms}, on_quorum_loss: hold, allow_two_voters: true, succession: false}
sync: {interface: bond0.100}
vip: {interface: eth0, networks: {inside: eth1, 7: vlan.7}, allow: [10.9.0.0/24, 10.9.1.1, "2001:db8::/64"], fence: off}
track: [{interface: eth1}, {gateway: 10.9.0.1}, {gateway: "2001:db8::1"}]
ownership: exclusive
reconcile: {interval: 1m}
api: {socket: /tmp/a.sock}
`), "c.yaml", host("x"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Node: "d2", Role: Director, DataDir: "/srv/lb",
		Cluster: Cluster{
			Name: "west", Address: netip.MustParseAddr("2001:db8::2"), Port: 1, GossipPort: 65535,
			Join: []string{"10.9.0.11", "10.9.0.12:7500", "[2001:db8::3]:7400"}, Expect: 2, Profile: WAN,
			SecretFile: "/etc/s", OnQuorumLoss: Hold, AllowTwoVoters: true,
			Timing: timing.Profile{
				Lease: time.Second, Heartbeat: 3 * time.Second, Election: 4 * time.Second, LeaderLease: 1250 * time.Millisecond,
				Stagger: 90 * time.Millisecond, Transport: 2 * time.Second, Commit: 30 * time.Millisecond,
			},
		},
		Sync: Sync{Interface: "bond0.100"},
		VIP: VIP{
			Interface: "eth0", Networks: map[string]string{"inside": "eth1", "7": "vlan.7"},
			Allow: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("10.9.1.1/32"), netip.MustParsePrefix("2001:db8::/64")},
			Fence: "off",
		},
		Track:     []Tracked{{Interface: "eth1"}, {Gateway: netip.MustParseAddr("10.9.0.1")}, {Gateway: netip.MustParseAddr("2001:db8::1")}},
		Ownership: Exclusive,
		Reconcile: Reconcile{Interval: time.Minute}, API: API{Socket: "/tmp/a.sock"},
	}
	if diff := cmp.Diff(want, got, compareAddr); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestConfigRefuses(t *testing.T) {
	var manyNetworks strings.Builder
	for i := range 66 {
		fmt.Fprintf(&manyNetworks, "    n%d: eth1\n", i)
	}
	tests := []struct{ name, text, says string }{
		{"unknown key", minimal + "nodes: d1\n", "c.yaml:2: nodes: unknown key; want one of node, role, data_dir, cluster, sync, vip, track, ownership, reconcile, api\n    nodes: d1\n    ^"},
		{"unknown inner key", "cluster:\n  name: lb\n  adress: 10.9.0.11\n", "c.yaml:3: cluster.adress: unknown key; want one of name, address,"},
		{"key twice", minimal + "node: a\nnode: b\n", "c.yaml:3: "},
		{"syntax", "cluster: {name: lb\nnode: [\n", "c.yaml:"},
		{"tab", "cluster:\n\tname: lb\n", "c.yaml:2: "},
		{"two documents", minimal + "---\nnode: d1\n", "c.yaml:3: a second document"},
		{"no mapping", "- a\n", "c.yaml:1: want a mapping, not a list"},
		{"no value", minimal + "node:\n", "c.yaml:2: node: has no value"},
		{"no name", "cluster: {name: , address: 10.9.0.11, expect: 1}\n", "c.yaml:1: cluster.name: has no value; all nodes of a cluster have the same"},
		{"empty file", "", "c.yaml: cluster.name: is missing"},
		{"no address", "cluster: {name: lb, expect: 1}\n", "c.yaml:1: cluster.address: is missing"},
		{"host name", "cluster: {name: a b, address: 10.9.0.11, expect: 1}", "c.yaml:1: cluster.name: \"a b\" has a character other than"},
		{"long name", minimal + "node: " + strings.Repeat("a", 64), "c.yaml:2: node: "},
		{"upper case", minimal + "node: D1", "c.yaml:2: node: \"D1\" has a character"},
		{"role", minimal + "role: leader", "c.yaml:2: role: \"leader\" is not one of [director witness]"},
		{"ownership", minimal + "ownership: all", "c.yaml:2: ownership: "},
		{"profile", "cluster: {name: lb, address: 10.9.0.11, expect: 1, profile: slow}", "cluster.profile: \"slow\" is not one of [fast lan wan]"},
		{"timings", "cluster:\n  name: lb\n  address: 10.9.0.11\n  expect: 1\n  timing:\n    heartbeat: 500ms\n    transport: 200ms\n", "c.yaml:6: cluster.timing.heartbeat: 500ms: must be at least 2.3 times lease, 300ms, that is 690ms, or raft stands for election before a promise ends\n        heartbeat: 500ms\n                   ^\nc.yaml:7: cluster.timing.transport: 200ms: must be above lease, 300ms"},
		{"timings of the profile", "cluster: {name: lb, address: 10.9.0.11, expect: 1, timing: {lease: 400ms}}", "c.yaml:1: cluster.timing.heartbeat: 700ms: must be at least 2.3 times lease, 400ms, that is 920ms"},
		{"lease", "cluster: {name: lb, address: 10.9.0.11, expect: 1, timing: {lease: 20ms}}", "c.yaml:1: cluster.timing.lease: 20ms is not from 65ms to 10s"},
		{"relative secret_file", "cluster: {name: lb, address: 10.9.0.11, expect: 1, secret_file: secret}", "c.yaml:1: cluster.secret_file: \"secret\" is not an absolute path"},
		{"relative data_dir", minimal + "data_dir: data", "c.yaml:2: data_dir: \"data\" is not an absolute path"},
		{"host as address", "cluster: {name: lb, address: d1, expect: 1}", "cluster.address: \"d1\" is not an IP address"},
		{"multicast", "cluster: {name: lb, address: 224.0.0.1, expect: 1}", "not a unicast address"},
		{"unspecified", "cluster: {name: lb, address: 0.0.0.0, expect: 1}", "not a unicast address"},
		{"zone", "cluster: {name: lb, address: \"fe80::1%eth0\", expect: 1}", "zone"},
		{"mapped", "cluster: {name: lb, address: \"::ffff:10.9.0.11\", expect: 1}", "write 10.9.0.11"},
		{"port 0", "cluster: {name: lb, address: 10.9.0.11, expect: 1, port: 0}", "cluster.port: 0 is not from 1 to 65535"},
		{"port word", "cluster: {name: lb, address: 10.9.0.11, expect: 1, port: http}", "cluster.port: \"http\" is not a whole number"},
		{"port 7400.5", "cluster: {name: lb, address: 10.9.0.11, expect: 1, port: 7400.5}", "\"7400.5\" is not a whole number"},
		{"octal", "cluster: {name: lb, address: 10.9.0.11, expect: 1, port: 07400}", "could be read in two ways; write 7400"},
		{"huge", "cluster: {name: lb, address: 10.9.0.11, expect: 1, port: 99999999999999999999}", "is not from 1 to 65535"},
		{"same ports", "cluster: {name: lb, address: 10.9.0.11, expect: 1, port: 7401}", "cluster.gossip_port: must differ from cluster.port, 7401"},
		{"expect 8", "cluster: {name: lb, address: 10.9.0.11, expect: 8}", "cluster.expect: 8 is not from 0 to 7"},
		{"nobody to join", "cluster: {name: lb, address: 10.9.0.11}", "cluster.join: names nobody"},
		{"join", "cluster: {name: lb, address: 10.9.0.11, join: [d2]}", "c.yaml:1: cluster.join[0]: \"d2\" is not an IP address or ADDRESS:PORT, and host names are not accepted"},
		{"join port 0", "cluster: {name: lb, address: 10.9.0.11, join: [\"10.9.0.12:0\"]}", "port 0 is not from 1 to 65535"},
		{"join port", "cluster: {name: lb, address: 10.9.0.11, join: [\"10.9.0.12:70000\"]}", "cluster.join[0]: \"10.9.0.12:70000\" is not ADDRESS:PORT or [IPv6]:PORT: port \"70000\" is not a number from 0 to 65535"},
		{"join a mapping", "cluster: {name: lb, address: 10.9.0.11, join: {a: b}}", "cluster.join: want a list, not a mapping"},
		{"two voters", "cluster: {name: lb, address: 10.9.0.11, expect: 2}", "start a third node with role: witness"},
		{"hold of three", "cluster: {name: lb, address: 10.9.0.11, expect: 3, on_quorum_loss: hold}", "cluster.on_quorum_loss: hold needs exactly two voters, and cluster.expect is 3"},
		{"hold of a witness", "cluster: {name: lb, address: 10.9.0.11, join: [10.9.0.12], on_quorum_loss: hold}\nrole: witness", "cluster.on_quorum_loss: hold is for directors"},
		{"hold on", "cluster: {name: lb, address: 10.9.0.11, expect: 1, on_quorum_loss: keep}", "cluster.on_quorum_loss: \"keep\" is not one of [release hold]"},
		{"witness alone", minimal + "role: witness", "cluster.expect: a witness cannot be a cluster alone"},
		{"witness with sync", "cluster: {name: lb, address: 10.9.0.11, expect: 3, join: [10.9.0.12]}\nrole: witness\nsync: {interface: eth0}", "c.yaml:3: sync.interface: is for directors"},
		{"interface", minimal + "sync: {interface: eth0-with-a-long-name}", "c.yaml:2: sync.interface: "},
		{"unknown key of vip", minimal + "vip: {iface: eth0}", "c.yaml:2: vip.iface: unknown key; want one of interface, networks, allow, fence"},
		{"vip interface", minimal + "vip: {interface: eth0-with-a-long-name}", "c.yaml:2: vip.interface: "},
		{"networks as a list", minimal + "vip: {interface: eth0, networks: [inside]}", "c.yaml:2: vip.networks: want a mapping such as {inside: eth1}, not a list"},
		{"network in capitals", minimal + "vip:\n  interface: eth0\n  networks:\n    Inside: eth1\n", "c.yaml:5: vip.networks.Inside: network \"Inside\" has a character other than a-z, 0-9 and '-'"},
		{"network without interface", minimal + "vip:\n  interface: eth0\n  networks:\n    inside:\n", "c.yaml:5: vip.networks.inside: has no value"},
		{"network twice", minimal + "vip: {interface: eth0, networks: {inside: eth1, inside: eth2}}", "c.yaml:2: "},
		{"interface of a network", minimal + "vip: {interface: eth0, networks: {inside: a/b}}", "c.yaml:2: vip.networks.inside: \"a/b\" is not the name of a network interface"},
		{"allowed host bits", minimal + "vip: {interface: eth0, allow: [10.9.0.0/24, 10.9.1.1/24]}", "c.yaml:2: vip.allow[1]: 10.9.1.1/24 has bits set beyond its length: write 10.9.1.0/24"},
		{"allowed length", minimal + "vip: {interface: eth0, allow: [10.9.0.0/33]}", "vip.allow[0]: \"10.9.0.0/33\" is not ADDRESS or ADDRESS/LENGTH: length \"33\" is not a number from 0 to 32"},
		{"allowed length of IPv6", minimal + "vip: {interface: eth0, allow: [\"2001:db8::/129\"]}", "length \"129\" is not a number from 0 to 128"},
		{"allowed name", minimal + "vip: {interface: eth0, allow: [here]}", "vip.allow[0]: \"here\" is not ADDRESS or ADDRESS/LENGTH"},
		{"allowed multicast", minimal + "vip: {interface: eth0, allow: [\"ff00::/8\"]}", "vip.allow[0]: ff00::/8 holds no unicast address"},
		{"allowed mapped", minimal + "vip: {interface: eth0, allow: [\"::ffff:10.9.0.0\"]}", "vip.allow[0]: ::ffff:10.9.0.0/128 is an IPv4 prefix written as IPv6"},
		{"too many allowed", minimal + "vip: {interface: eth0, allow: [" + strings.Repeat("10.9.0.0/24, ", 65) + "]}", "vip.allow[64]: more than 64 prefixes"},
		{"too many networks", minimal + "vip:\n  interface: eth0\n  networks:\n" + manyNetworks.String(), "c.yaml:69: vip.networks.n64: more than 64 networks"},
		{"fence", minimal + "vip: {interface: eth0, fence: none}", "c.yaml:2: vip.fence: \"none\" is not one of [nft off]"},
		{"networks without interface", minimal + "vip: {networks: {inside: eth1}}", "c.yaml:2: vip.networks: needs vip.interface; without it"},
		{"allow without interface", minimal + "vip: {allow: [10.9.0.0/24]}", "c.yaml:2: vip.allow: needs vip.interface; without it"},
		{"witness with vip", "cluster: {name: lb, address: 10.9.0.11, expect: 3, join: [10.9.0.12]}\nrole: witness\nvip: {interface: eth0}", "c.yaml:3: vip.interface: is for directors"},
		{"track a name", minimal + "track: [eth1]", "c.yaml:2: track[0]: want a mapping such as {interface: eth1}, not \"eth1\""},
		{"track nothing", minimal + "track: [{}]", "c.yaml:2: track[0]: want either interface or gateway"},
		{"track both", minimal + "track: [{interface: eth1, gateway: 10.9.0.1}]", "c.yaml:2: track[0]: want either interface or gateway"},
		{"track a strange interface", minimal + "track: [{interface: a/b}]", "c.yaml:2: track[0].interface: \"a/b\" is not the name of a network interface"},
		{"track a group", minimal + "track: [{interface: eth1}, {gateway: 224.0.0.1}]", "c.yaml:2: track[1].gateway: 224.0.0.1 is not a unicast address"},
		{"track too much", minimal + "track: [" + strings.Repeat("{interface: eth1}, ", 17) + "]", "c.yaml:2: track[16]: more than 16 interfaces and gateways"},
		{"witness that tracks", "cluster: {name: lb, address: 10.9.0.11, expect: 3, join: [10.9.0.12]}\nrole: witness\ntrack: [{interface: eth0}]", "c.yaml:3: track: is for directors"},
		{"interval", minimal + "reconcile: {interval: 10}", "\"10\" is not a duration"},
		{"short interval", minimal + "reconcile: {interval: 10ms}", "10ms is not from 1s to 1h0m0s"},
		{"socket", minimal + "api: {socket: /" + strings.Repeat("x", 107) + "}", "at most 107 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseConfig([]byte(tt.text), "c.yaml", host("d1"))
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got error:\n%v\nwant one that says:\n%s", err, tt.says)
			}
			if !errors.Is(err, ipvs.ErrInvalid) {
				t.Errorf("%v does not match ErrInvalid", err)
			}
		})
	}
}

func TestConfigReportsEveryMistakeInOrder(t *testing.T) {
	_, err := parseConfig([]byte("role: boss\ncluster:\n  port: x\n  expect: 9\nextra: 1\n"), "c.yaml", host("bad_host"))
	var got []string
	for line := range strings.Lines(err.Error()) {
		if strings.HasPrefix(line, "c.yaml") {
			place, _, _ := strings.Cut(strings.TrimSpace(line), ": ")
			_, rest, _ := strings.Cut(line, ": ")
			path, _, _ := strings.Cut(rest, ": ")
			got = append(got, place+" "+path)
		}
	}
	want := []string{"c.yaml node", "c.yaml:1 role", "c.yaml:2 cluster.name", "c.yaml:2 cluster.address", "c.yaml:3 cluster.port", "c.yaml:4 cluster.expect", "c.yaml:5 extra"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s\n%v", diff, err)
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

func TestDevIsOneDirectorAlone(t *testing.T) {
	c := Dev("/tmp/x")
	if c.Cluster.Expect != 1 || c.Role != Director || !c.Cluster.Address.IsLoopback() {
		t.Errorf("%+v is not one director alone on loopback", c)
	}
	for _, path := range []string{c.DataDir, c.API.Socket} {
		if filepath.Dir(path) != "/tmp/x" {
			t.Errorf("%s is not in the directory", path)
		}
	}
}

// TestReferenceHasEveryKey holds reference.yaml to the code: it loads, has every
// key, and shows the defaults.
func TestReferenceHasEveryKey(t *testing.T) {
	data, err := os.ReadFile("reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseConfig(data, "reference.yaml", host("h"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := parse("reference.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	var c Config
	f.keys(f.root, "", c.keys())
	for _, k := range c.keys() {
		if !f.has(k.name) {
			t.Errorf("reference.yaml lacks %s", k.name)
		}
	}
	want := Default()
	// What has no default, or none that an example could show.
	want.Node, want.Cluster.Name, want.Cluster.Address = got.Node, got.Cluster.Name, got.Cluster.Address
	want.Cluster.Join, want.Cluster.Expect, want.Sync.Interface = got.Cluster.Join, got.Cluster.Expect, got.Sync.Interface
	if diff := cmp.Diff(want.Cluster.Timings(), got.Cluster.Timing); diff != "" {
		t.Errorf("reference.yaml shows other timings than the profile's (-profile +reference)\n%s", diff)
	}
	want.Cluster.Timing, want.Cluster.SecretFile = got.Cluster.Timing, got.Cluster.SecretFile
	want.VIP.Interface, want.VIP.Networks, want.VIP.Allow, want.Track = got.VIP.Interface, got.VIP.Networks, got.VIP.Allow, got.Track
	if diff := cmp.Diff(want, got, compareAddr); diff != "" {
		t.Errorf("reference.yaml shows another default (-default +reference)\n%s", diff)
	}
}

// TestKeysSetEveryField fails when a field of Config has no key.
func TestKeysSetEveryField(t *testing.T) {
	var c Config
	if fields, keys := countFields(reflect.TypeOf(c)), len(c.keys()); fields != keys {
		t.Errorf("Config has %d fields, and there are %d keys", fields, keys)
	}
}

func countFields(typ reflect.Type) int {
	if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[netip.Addr]() {
		return 1
	}
	n := 0
	for i := range typ.NumField() {
		n += countFields(typ.Field(i).Type)
	}
	return n
}

// TestDocumentedDefaults reads each default that the documentation states.
func TestDocumentedDefaults(t *testing.T) {
	var b strings.Builder
	b.WriteString(minimal)
	c := Default()
	last := "cluster"
	for _, k := range c.keys() {
		section, name, nested := strings.Cut(k.name, ".")
		if section == "cluster" || k.standard == "none" || k.standard == "the host name" {
			continue
		}
		if nested {
			if section != last {
				fmt.Fprintf(&b, "%s:\n", section)
			}
			fmt.Fprintf(&b, "  %s: %s\n", name, k.standard)
		} else {
			fmt.Fprintf(&b, "%s: %s\n", section, k.standard)
		}
		last = section
	}
	got, err := parseConfig([]byte(b.String()), "defaults", host("h"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := parseConfig([]byte(minimal), "minimal", host("h"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareAddr); diff != "" {
		t.Errorf("a stated default is not the default (-default +stated)\n%s", diff)
	}
}

// TestConfigurationDocument keeps the table of keys in docs/configuration.md equal
// to the code; -update rewrites it.
func TestConfigurationDocument(t *testing.T) {
	const path, start, end = "../docs/configuration.md", "<!-- keys: start -->\n", "<!-- keys: end -->\n"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| key | default | meaning |\n|---|---|---|\n")
	var c Config
	for _, k := range c.keys() {
		standard := "required"
		switch k.standard {
		case "":
		case "none", "the host name", "the profile's":
			standard = k.standard
		default:
			standard = "`" + k.standard + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.name, standard, k.meaning)
	}
	head, rest, ok := strings.Cut(string(data), start)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", path, start, end)
	}
	if diff := cmp.Diff(b.String(), old); diff != "" {
		if !*update {
			t.Fatalf("%s is not what the code says; go test ./configs -update (-want +got)\n%s", path, diff)
		}
		if err := os.WriteFile(path, []byte(head+start+b.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
