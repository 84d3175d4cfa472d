package kerneltest

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

var (
	group4 = netip.MustParseAddr("224.0.0.81")
	group6 = netip.MustParseAddr("ff02::81")
)

func wantDaemons(t *testing.T, k Kernel, want ...ipvs.Daemon) {
	t.Helper()
	have, err := k.Daemons(t.Context())
	must(t, err)
	if diff := cmp.Diff(append([]ipvs.Daemon{}, want...), have, byPrefix); diff != "" {
		t.Fatalf("daemons (-want +got):\n%s", diff)
	}
}

// start starts d, once an address that is still being checked for duplicates can
// be used.
func start(t *testing.T, k Kernel, d ipvs.Daemon) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := k.StartDaemon(t.Context(), d)
		if errors.Is(err, syscall.EADDRNOTAVAIL) && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond) // the kernel offers nothing to wait for
			continue
		}
		must(t, err)
		return
	}
}

func daemonsReadBack(t *testing.T, k Kernel) {
	tests := []struct {
		name       string
		start, got ipvs.Daemon // what is zero in got is as in start
	}{
		{
			"master, defaults",
			ipvs.Daemon{State: ipvs.Master},
			ipvs.Daemon{MaxLen: 1472, Group: group4, Port: 8848, TTL: 1},
		},
		{
			"backup, defaults",
			ipvs.Daemon{State: ipvs.Backup},
			ipvs.Daemon{MaxLen: 1472, Group: group4, Port: 8848, TTL: 1},
		},
		{
			"master, everything",
			ipvs.Daemon{State: ipvs.Master, SyncID: 255, MaxLen: 9188, Group: netip.MustParseAddr("239.1.2.3"), Port: 9999, TTL: 255},
			ipvs.Daemon{},
		},
		{
			"backup, everything",
			ipvs.Daemon{State: ipvs.Backup, SyncID: 7, MaxLen: 9188, Group: netip.MustParseAddr("239.1.2.3"), Port: 1, TTL: 2},
			ipvs.Daemon{},
		},
		{
			"short messages",
			ipvs.Daemon{State: ipvs.Backup, MaxLen: 1},
			ipvs.Daemon{MaxLen: 1024, Group: group4, Port: 8848, TTL: 1},
		},
		{
			"long messages",
			ipvs.Daemon{State: ipvs.Backup, MaxLen: 65535},
			ipvs.Daemon{MaxLen: 65507, Group: group4, Port: 8848, TTL: 1},
		},
		{
			"backup, IPv6",
			ipvs.Daemon{State: ipvs.Backup, Group: group6},
			ipvs.Daemon{MaxLen: 1452, Port: 8848, TTL: 1},
		},
		{
			"master, IPv6",
			ipvs.Daemon{State: ipvs.Master, SyncID: 9, Group: group6},
			ipvs.Daemon{MaxLen: 1452, Port: 8848, TTL: 1},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.start.Interface = InterfaceUp
			want := test.start
			if test.got.MaxLen != 0 {
				want.MaxLen = test.got.MaxLen
			}
			if test.got.Group.IsValid() {
				want.Group = test.got.Group
			}
			if test.got.Port != 0 {
				want.Port, want.TTL = test.got.Port, test.got.TTL
			}
			start(t, k, test.start)
			wantDaemons(t, k, want)
			must(t, k.StopDaemon(t.Context(), test.start.State))
			wantDaemons(t, k)
		})
	}
}

func daemonRefusals(t *testing.T, k Kernel) {
	ctx := t.Context()
	on := func(change func(d *ipvs.Daemon)) ipvs.Daemon {
		d := ipvs.Daemon{State: ipvs.Master, Interface: InterfaceUp, SyncID: 1}
		change(&d)
		return d
	}
	starts := []struct {
		name string
		d    ipvs.Daemon
		want []error
	}{
		{"no such interface", on(func(d *ipvs.Daemon) { d.Interface = "nosuch0" }), []error{syscall.ENODEV}},
		{"interface down", on(func(d *ipvs.Daemon) { d.Interface = InterfaceDown }), []error{syscall.ENETUNREACH}},
		{"unicast group", on(func(d *ipvs.Daemon) { d.Group = keyV4.Addr }), []error{syscall.EINVAL, ipvs.ErrInvalid}},
		{"unicast IPv6 group", on(func(d *ipvs.Daemon) { d.Group = keyV6.Addr }), []error{syscall.EINVAL, ipvs.ErrInvalid}},
		{"mapped group", on(func(d *ipvs.Daemon) { d.Group = netip.MustParseAddr("::ffff:224.0.0.81") }), []error{ipvs.ErrInvalid}},
		{"no interface", on(func(d *ipvs.Daemon) { d.Interface = "" }), []error{ipvs.ErrInvalid}},
		{"16 characters", on(func(d *ipvs.Daemon) { d.Interface = "abcdefghijklmnop" }), []error{ipvs.ErrInvalid}},
		{"syncid 256", on(func(d *ipvs.Daemon) { d.SyncID = 256 }), []error{ipvs.ErrInvalid}},
		{"maxlen 9189", on(func(d *ipvs.Daemon) { d.MaxLen = 9189 }), []error{ipvs.ErrInvalid}},
		{"state 0", on(func(d *ipvs.Daemon) { d.State = 0 }), []error{ipvs.ErrInvalid}},
		{"state 3", on(func(d *ipvs.Daemon) { d.State = 3 }), []error{ipvs.ErrInvalid}},
	}
	for _, test := range starts {
		matches(t, test.name, k.StartDaemon(ctx, test.d), test.want...)
	}
	for _, role := range []ipvs.DaemonState{ipvs.Master, ipvs.Backup} {
		matches(t, "stop a "+role.String()+" that does not run", k.StopDaemon(ctx, role), os.ErrNotExist, syscall.ESRCH)
	}
	matches(t, "stop state 3", k.StopDaemon(ctx, 3), ipvs.ErrInvalid)
	wantDaemons(t, k)

	must(t, k.StartDaemon(ctx, ipvs.Daemon{State: ipvs.Backup, Interface: InterfaceDown})) // a backup does not mind
	matches(t, "twice", k.StartDaemon(ctx, ipvs.Daemon{State: ipvs.Backup, Interface: InterfaceUp}), os.ErrExist)
	matches(t, "twice, no such interface", k.StartDaemon(ctx, ipvs.Daemon{State: ipvs.Backup, Interface: "nosuch0"}), syscall.ENODEV)
}

// daemonsComeAndGo stops daemons at once after their start, which the kernel often
// does without an answer.
func daemonsComeAndGo(t *testing.T, k Kernel) {
	ctx := t.Context()
	full := func(role ipvs.DaemonState, id uint32) ipvs.Daemon {
		return ipvs.Daemon{State: role, Interface: InterfaceUp, SyncID: id, MaxLen: 1472, Group: group4, Port: 8848, TTL: 1}
	}
	for i := range uint32(6) {
		master, backup := full(ipvs.Master, i), full(ipvs.Backup, i+1)
		must(t, k.StartDaemon(ctx, backup))
		must(t, k.StartDaemon(ctx, master))
		wantDaemons(t, k, master, backup)
		must(t, k.StopDaemon(ctx, ipvs.Master))
		wantDaemons(t, k, backup)
		must(t, k.StopDaemon(ctx, ipvs.Backup))
		wantDaemons(t, k)
	}
}

func daemonsAgainstMixedFamilies(t *testing.T, k Kernel) {
	ctx := t.Context()
	must(t, k.AddService(ctx, service(keyV4)))
	mixed := ipvs.Destination{Addr: addr6, Forward: ipvs.Tunnel, Weight: 1}
	for _, role := range []ipvs.DaemonState{ipvs.Master, ipvs.Backup} {
		d := ipvs.Daemon{State: role, Interface: InterfaceUp}
		must(t, k.StartDaemon(ctx, d))
		matches(t, "mixed while a "+role.String()+" runs", k.AddDestination(ctx, keyV4, mixed), syscall.EINVAL, ipvs.ErrInvalid)
		must(t, k.StopDaemon(ctx, role))
		must(t, k.AddDestination(ctx, keyV4, mixed))
		matches(t, role.String()+" with a mixed destination", k.StartDaemon(ctx, d), syscall.EINVAL, ipvs.ErrInvalid)
		must(t, k.DeleteDestination(ctx, keyV4, addr6))
	}
	wantDaemons(t, k)
}

func timeouts(t *testing.T, k Kernel) {
	ctx := t.Context()
	want := func(w ipvs.Timeouts) {
		t.Helper()
		have, err := k.Timeouts(ctx)
		must(t, err)
		if have != w {
			t.Errorf("timeouts %+v, want %+v", have, w)
		}
	}
	want(ipvs.Timeouts{TCP: 900, TCPFin: 120, UDP: 300})
	must(t, k.SetTimeouts(ctx, ipvs.Timeouts{}))
	want(ipvs.Timeouts{TCP: 900, TCPFin: 120, UDP: 300})
	must(t, k.SetTimeouts(ctx, ipvs.Timeouts{TCPFin: 1}))
	want(ipvs.Timeouts{TCP: 900, TCPFin: 1, UDP: 300})
	must(t, k.SetTimeouts(ctx, ipvs.Timeouts{TCP: 7200, TCPFin: 60, UDP: 30}))
	want(ipvs.Timeouts{TCP: 7200, TCPFin: 60, UDP: 30})
	matches(t, "a long timeout", k.SetTimeouts(ctx, ipvs.Timeouts{TCP: 1, UDP: 1 << 31}), ipvs.ErrInvalid, syscall.EINVAL)
	want(ipvs.Timeouts{TCP: 7200, TCPFin: 60, UDP: 30})
}

func info(t *testing.T, k Kernel) {
	have, err := k.Info(t.Context())
	must(t, err)
	if want := (ipvs.Info{Version: 0x010201, ConnTableSize: 4096}); have != want {
		t.Errorf("info %+v, want %+v", have, want)
	}
}
