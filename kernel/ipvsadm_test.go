package kernel_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/kerneltest"
)

// The second opinion: what this package writes ipvsadm must read, and the other way
// round. A command inherits the network namespace of the test's locked thread.

func ipvsadm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ipvsadm", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ipvsadm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func dialBesideIPVSAdm(t *testing.T) *kernel.Client {
	t.Helper()
	if _, err := exec.LookPath("ipvsadm"); err != nil {
		skip(t, err)
	}
	return dial(t)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func key(t *testing.T, url string) ipvs.ServiceKey {
	t.Helper()
	k, err := ipvs.ParseServiceKey(url)
	must(t, err)
	return k
}

var byAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// said is a service and the lines of ipvsadm -Sn for it.
type said struct {
	service string
	set     func(s *ipvs.Service)
	lines   string // without the destinations'
}

func sayings() []said {
	persistent := func(p ipvs.Persistence) func(*ipvs.Service) {
		return func(s *ipvs.Service) { s.Persistence = p }
	}
	flagged := func(scheduler string, f ipvs.Flags) func(*ipvs.Service) {
		return func(s *ipvs.Service) { s.Scheduler, s.Flags = scheduler, f }
	}
	plain := func(*ipvs.Service) {}
	mask := netip.MustParseAddr("255.255.255.0")
	list := []said{
		{"tcp://10.9.0.100:80", plain, "-A -t 10.9.0.100:80 -s wlc"},
		{"udp://10.9.0.100:53", plain, "-A -u 10.9.0.100:53 -s wlc"},
		{"sctp://10.9.0.100:9", plain, "-A --sctp-service 10.9.0.100:9 -s wlc"},
		{"tcp://[2001:db8::100]:80", plain, "-A -t [2001:db8::100]:80 -s wlc"},
		{"udp://[2001:db8::100]:53", plain, "-A -u [2001:db8::100]:53 -s wlc"},
		{"sctp://[2001:db8::100]:9", plain, "-A --sctp-service [2001:db8::100]:9 -s wlc"},
		{"fwmark://7", plain, "-A -f 7 -s wlc"},
		{"fwmark6://7", plain, "-A -f 7 -6 -s wlc"},
		{"fwmark://2147483647", plain, "-A -f 2147483647 -s wlc"},
		{"tcp://10.9.0.100:80", persistent(ipvs.Persistence{Timeout: 300}), "-A -t 10.9.0.100:80 -s wlc -p 300"},
		{"tcp://10.9.0.100:80", persistent(ipvs.Persistence{Timeout: ipvs.MaxTimeout}), "-A -t 10.9.0.100:80 -s wlc -p 2678400"},
		{"tcp://10.9.0.100:0", persistent(ipvs.Persistence{Timeout: 10}), "-A -t 10.9.0.100:0 -s wlc -p 10"},
		{"tcp://10.9.0.100:80", persistent(ipvs.Persistence{Timeout: 60, Netmask: mask}), "-A -t 10.9.0.100:80 -s wlc -p 60 -M 255.255.255.0"},
		{"fwmark://7", persistent(ipvs.Persistence{Timeout: 60, Netmask: mask}), "-A -f 7 -s wlc -p 60 -M 255.255.255.0"},
		{"tcp://[2001:db8::100]:80", persistent(ipvs.Persistence{Timeout: 60}), "-A -t [2001:db8::100]:80 -s wlc -p 60"},
		{"tcp://[2001:db8::100]:80", persistent(ipvs.Persistence{Timeout: 60, Prefix: 64}), "-A -t [2001:db8::100]:80 -s wlc -p 60 -M 64"},
		{"fwmark6://7", persistent(ipvs.Persistence{Timeout: 60, Prefix: 48}), "-A -f 7 -6 -s wlc -p 60 -M 48"},
		{"udp://10.9.0.100:5060", persistent(ipvs.Persistence{Timeout: 360, Engine: "sip"}), "-A -u 10.9.0.100:5060 -s wlc -p 360 --pe sip"},
		{"udp://10.9.0.100:5060", flagged("rr", ipvs.OnePacket), "-A -u 10.9.0.100:5060 -s rr -o"},
		{"fwmark6://7", flagged("rr", ipvs.OnePacket), "-A -f 7 -6 -s rr -o"},
		{"tcp://10.9.0.100:80", flagged("sh", ipvs.SHFallback), "-A -t 10.9.0.100:80 -s sh -b sh-fallback"},
		{"tcp://10.9.0.100:80", flagged("sh", ipvs.SHPort), "-A -t 10.9.0.100:80 -s sh -b sh-port"},
		{"tcp://10.9.0.100:80", flagged("mh", ipvs.MHFallback), "-A -t 10.9.0.100:80 -s mh -b mh-fallback"},
		{"tcp://10.9.0.100:80", flagged("mh", ipvs.MHFallback|ipvs.MHPort), "-A -t 10.9.0.100:80 -s mh -b mh-fallback,mh-port"},
		{"tcp://10.9.0.100:80", flagged("rr", ipvs.Flag1), "-A -t 10.9.0.100:80 -s rr -b flag-1"},
		{"tcp://10.9.0.100:80", flagged("rr", ipvs.Flag2), "-A -t 10.9.0.100:80 -s rr -b flag-2"},
		{"tcp://10.9.0.100:80", flagged("rr", ipvs.Flag3), "-A -t 10.9.0.100:80 -s rr -b flag-3"},
	}
	for _, name := range ipvs.Schedulers() {
		if name != "twos" { // not built by distributions, see kerneltest
			list = append(list, said{"tcp://10.9.0.100:80", flagged(name, 0), "-A -t 10.9.0.100:80 -s " + name})
		}
	}
	return list
}

func TestRealIPVSAdmServices(t *testing.T) {
	c := dialBesideIPVSAdm(t)
	ctx := t.Context()
	for _, s := range sayings() {
		want := ipvs.Service{Key: key(t, s.service), Scheduler: "wlc"}
		s.set(&want)
		must(t, c.AddService(ctx, want))
		if diff := cmp.Diff(s.lines+"\n", ipvsadm(t, "-Sn")); diff != "" {
			t.Errorf("ipvsadm reads (-want +got):\n%s", diff)
		}
		must(t, c.Flush(ctx))
		ipvsadm(t, strings.Fields(s.lines)...)
		have, err := c.Table(ctx)
		must(t, err)
		if diff := cmp.Diff(ipvs.TableOf(want).Document(), have.Document(), byAddr); diff != "" {
			t.Errorf("%s reads (-want +got):\n%s", s.lines, diff)
		}
		ipvsadm(t, "-C")
	}
}

func TestRealIPVSAdmDestinations(t *testing.T) {
	c := dialBesideIPVSAdm(t)
	ctx := t.Context()
	tunnel := func(typ ipvs.TunnelType, port uint16, sum ipvs.Checksum) ipvs.Destination {
		return ipvs.Destination{Forward: ipvs.Tunnel, Weight: 1, Tunnel: ipvs.TunnelOptions{Type: typ, Port: port, Checksum: sum}}
	}
	tests := []struct {
		service, addr string
		d             ipvs.Destination
		args          string // what follows "-r ADDR"
		shown         string // with --tun-info, after the address
	}{
		{"tcp://10.9.0.100:80", "10.9.0.21:80", ipvs.Destination{Forward: ipvs.DRoute, Weight: 1}, "-g -w 1", "Route n/a 1"},
		{"tcp://10.9.0.100:80", "10.9.0.21:8080", ipvs.Destination{Forward: ipvs.Masq, Weight: 0}, "-m -w 0", "Masq n/a 0"},
		{"tcp://10.9.0.100:80", "10.9.0.21:80", ipvs.Destination{Forward: ipvs.Masq, Weight: 65535}, "-m -w 65535", "Masq n/a 65535"},
		{"fwmark://7", "10.9.0.21:0", ipvs.Destination{Forward: ipvs.DRoute, Weight: 1}, "-g -w 1", "Route n/a 1"},
		{"fwmark6://7", "[2001:db8::21]:0", ipvs.Destination{Forward: ipvs.DRoute, Weight: 1}, "-g -w 1", "Route n/a 1"},
		{"udp://[2001:db8::100]:53", "[2001:db8::21]:53", ipvs.Destination{Forward: ipvs.Masq, Weight: 2}, "-m -w 2", "Masq n/a 2"},
		{"tcp://10.9.0.100:80", "10.9.0.21:80", tunnel(ipvs.IPIP, 0, 0), "-i -w 1 --tun-type ipip", "Tunnel ipip 1"},
		{"tcp://10.9.0.100:80", "[2001:db8::21]:80", tunnel(ipvs.IPIP, 0, 0), "-i -w 1 --tun-type ipip", "Tunnel ipip 1"},
		{"tcp://[2001:db8::100]:80", "10.9.0.21:80", tunnel(ipvs.GRE, 0, 0), "-i -w 1 --tun-type gre --tun-nocsum", "Tunnel gre:-c 1"},
		{"tcp://10.9.0.100:80", "10.9.0.21:80", tunnel(ipvs.GUE, 6080, 0), "-i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum", "Tunnel gue:6080:-c 1"},
		{"tcp://10.9.0.100:80", "10.9.0.21:80", tunnel(ipvs.GUE, 6080, ipvs.Csum), "-i -w 1 --tun-type gue --tun-port 6080 --tun-csum", "Tunnel gue:6080:+c 1"},
		{"tcp://10.9.0.100:80", "10.9.0.21:80", tunnel(ipvs.GUE, 6080, ipvs.RemCsum), "-i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum", "Tunnel gue:6080:r+c 1"},
		{"tcp://10.9.0.100:80", "10.9.0.21:80", tunnel(ipvs.GRE, 0, 0), "-i -w 1 --tun-type gre --tun-nocsum", "Tunnel gre:-c 1"},
		{"tcp://10.9.0.100:80", "10.9.0.21:80", tunnel(ipvs.GRE, 0, ipvs.Csum), "-i -w 1 --tun-type gre --tun-csum", "Tunnel gre:+c 1"},
	}
	for _, test := range tests {
		s := ipvs.Service{Key: key(t, test.service), Scheduler: "rr"}
		d := test.d
		d.Addr = netip.MustParseAddrPort(test.addr)
		must(t, c.AddService(ctx, s))
		service := strings.TrimSuffix(strings.TrimPrefix(ipvsadm(t, "-Sn"), "-A "), " -s rr\n")
		line := fmt.Sprintf("-a %s -r %s %s", service, test.addr, test.args)

		must(t, c.AddDestination(ctx, s.Key, d))
		saved := strings.SplitN(ipvsadm(t, "-Sn"), "\n", 2)[1]
		if diff := cmp.Diff(strings.Replace(line, " -6 -r", " -r", 1)+"\n", strings.Replace(saved, " -6 -r", " -r", 1)); diff != "" {
			t.Errorf("ipvsadm reads (-want +got):\n%s", diff)
		}
		if shown := strings.Join(strings.Fields(ipvsadm(t, "-Ln", "--tun-info")), " "); !strings.Contains(shown, test.addr+" "+test.shown+" 0 0") {
			t.Errorf("ipvsadm --tun-info does not show %q:\n%s", test.shown, shown)
		}
		must(t, c.DeleteDestination(ctx, s.Key, d.Addr))

		ipvsadm(t, strings.Fields(line)...)
		have, err := c.Destinations(ctx, s.Key)
		must(t, err)
		if diff := cmp.Diff([]ipvs.DestinationEntry{{Destination: d}}, have, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s reads (-want +got):\n%s", line, diff)
		}
		ipvsadm(t, "-C")
	}
}

func TestRealIPVSAdmThresholds(t *testing.T) {
	c := dialBesideIPVSAdm(t)
	ctx := t.Context()
	s := ipvs.Service{Key: key(t, "tcp://10.9.0.100:80"), Scheduler: "rr"}
	d := ipvs.Destination{Addr: netip.MustParseAddrPort("10.9.0.21:80"), Forward: ipvs.Masq, Weight: 1, Upper: 100, Lower: 10}
	must(t, c.AddService(ctx, s))
	must(t, c.AddDestination(ctx, s.Key, d))
	if shown := strings.Join(strings.Fields(ipvsadm(t, "-Ln", "--thresholds")), " "); !strings.Contains(shown, "10.9.0.21:80 100 10 0 0") {
		t.Errorf("ipvsadm --thresholds shows:\n%s", shown)
	}
	ipvsadm(t, strings.Fields("-e -t 10.9.0.100:80 -r 10.9.0.21:80 -m -w 1 -x 2000000 -y 7")...)
	have, err := c.Destinations(ctx, s.Key)
	must(t, err)
	if len(have) != 1 || have[0].Upper != 2000000 || have[0].Lower != 7 {
		t.Errorf("thresholds by ipvsadm read as %+v", have)
	}
}

func TestRealIPVSAdmTimeouts(t *testing.T) {
	c := dialBesideIPVSAdm(t)
	must(t, c.SetTimeouts(t.Context(), ipvs.Timeouts{TCP: 7200, TCPFin: 60, UDP: 30}))
	if got, want := ipvsadm(t, "-L", "--timeout"), "Timeout (tcp tcpfin udp): 7200 60 30\n"; got != want {
		t.Errorf("ipvsadm reads %q, want %q", got, want)
	}
	ipvsadm(t, "--set", "1000", "0", "3")
	have, err := c.Timeouts(t.Context())
	must(t, err)
	if want := (ipvs.Timeouts{TCP: 1000, TCPFin: 60, UDP: 3}); have != want {
		t.Errorf("timeouts by ipvsadm read as %+v, want %+v", have, want)
	}
}

func TestRealIPVSAdmDaemons(t *testing.T) {
	c := dialBesideIPVSAdm(t)
	ctx := t.Context()
	master := ipvs.Daemon{State: ipvs.Master, Interface: kerneltest.InterfaceUp, SyncID: 7, MaxLen: 1400, Group: netip.MustParseAddr("239.1.1.1"), Port: 9000, TTL: 3}
	backup := ipvs.Daemon{State: ipvs.Backup, Interface: kerneltest.InterfaceUp, SyncID: 8, MaxLen: 1472, Group: netip.MustParseAddr("224.0.0.81"), Port: 8848, TTL: 1}
	backup6 := ipvs.Daemon{State: ipvs.Backup, Interface: kerneltest.InterfaceUp, SyncID: 0, MaxLen: 2000, Group: netip.MustParseAddr("ff02::81"), Port: 8848, TTL: 1}
	show := func(d ipvs.Daemon) string {
		return fmt.Sprintf("%s sync daemon (mcast=%s, syncid=%d, maxlen=%d, group=%s, port=%d, ttl=%d)\n",
			d.State, d.Interface, d.SyncID, d.MaxLen, d.Group, d.Port, d.TTL)
	}
	for _, daemons := range [][]ipvs.Daemon{{master}, {backup}, {backup6}, {master, backup}} {
		var want string
		for _, d := range daemons {
			must(t, c.StartDaemon(ctx, d))
			want += show(d)
		}
		if diff := cmp.Diff(want, ipvsadm(t, "-L", "--daemon")); diff != "" {
			t.Errorf("ipvsadm reads (-want +got):\n%s", diff)
		}
		for _, d := range daemons {
			must(t, c.StopDaemon(ctx, d.State))
		}
		for _, d := range daemons {
			ipvsadm(t, "--start-daemon", d.State.String(), "--mcast-interface", d.Interface, "--syncid", fmt.Sprint(d.SyncID),
				"--sync-maxlen", fmt.Sprint(d.MaxLen), "--mcast-group", d.Group.String(), "--mcast-port", fmt.Sprint(d.Port), "--mcast-ttl", fmt.Sprint(d.TTL))
		}
		have, err := c.Daemons(ctx)
		must(t, err)
		if diff := cmp.Diff(daemons, have, byAddr); diff != "" {
			t.Errorf("daemons by ipvsadm (-want +got):\n%s", diff)
		}
		for _, d := range daemons {
			must(t, c.StopDaemon(ctx, d.State))
		}
	}
}
