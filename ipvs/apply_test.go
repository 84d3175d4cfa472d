package ipvs_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestApplyRefuses(t *testing.T) {
	have := table(t, `{"services":[{"service":"tcp://10.9.0.1:80","scheduler":"rr","destinations":[{"address":"10.9.1.1:80"}]}]}`)
	key := mustKey(t, "tcp://10.9.0.1:80")
	other := mustKey(t, "tcp://10.9.0.2:80")
	d := func(addr string, edit func(*ipvs.Destination)) *ipvs.Destination {
		d := ipvs.Destination{Addr: netip.MustParseAddrPort(addr), Forward: ipvs.DRoute, Weight: 1}
		if edit != nil {
			edit(&d)
		}
		return &d
	}
	tests := []struct {
		name   string
		change ipvs.Change
		is     error
		says   string
	}{
		{"existing service", ipvs.Change{Op: ipvs.AddService, Key: key, Service: &ipvs.Service{Key: key, Scheduler: "rr"}}, os.ErrExist, "tcp://10.9.0.1:80"},
		{"missing service", ipvs.Change{Op: ipvs.SetService, Key: other, Service: &ipvs.Service{Key: other, Scheduler: "rr"}}, os.ErrNotExist, "tcp://10.9.0.2:80"},
		{"delete missing service", ipvs.Change{Op: ipvs.DeleteService, Key: other}, os.ErrNotExist, "tcp://10.9.0.2:80"},
		{"service under another key", ipvs.Change{Op: ipvs.SetService, Key: key, Service: &ipvs.Service{Key: other}}, ipvs.ErrInvalid, "another key"},
		{"unknown scheduler", ipvs.Change{Op: ipvs.SetService, Key: key, Service: &ipvs.Service{Key: key, Scheduler: "quick"}}, ipvs.ErrInvalid, "scheduler"},
		{"existing destination", ipvs.Change{Op: ipvs.AddDestination, Key: key, Destination: d("10.9.1.1:80", nil)}, os.ErrExist, "10.9.1.1:80"},
		{"missing destination", ipvs.Change{Op: ipvs.SetDestination, Key: key, Destination: d("10.9.1.2:80", nil)}, os.ErrNotExist, "10.9.1.2:80"},
		{"delete missing destination", ipvs.Change{Op: ipvs.DeleteDestination, Key: key, Address: netip.MustParseAddrPort("10.9.1.2:80")}, os.ErrNotExist, "10.9.1.2:80"},
		{"destination of a missing service", ipvs.Change{Op: ipvs.AddDestination, Key: other, Destination: d("10.9.1.2:80", nil)}, os.ErrNotExist, "no virtual service"},
		{"droute to another port", ipvs.Change{Op: ipvs.AddDestination, Key: key, Destination: d("10.9.1.2:81", nil)}, ipvs.ErrInvalid, "port 81"},
		{"negative weight", ipvs.Change{Op: ipvs.AddDestination, Key: key, Destination: d("10.9.1.2:80", func(d *ipvs.Destination) { d.Weight = -1 })}, ipvs.ErrInvalid, "weight: -1"},
		{"mixed families with sync", ipvs.Change{Op: ipvs.AddDestination, Key: key, Destination: d("[2001:db8::1]:80", func(d *ipvs.Destination) { d.Forward = ipvs.Tunnel })}, ipvs.ErrInvalid, "sync: {enabled: false}"},
		{"no destination", ipvs.Change{Op: ipvs.AddDestination, Key: key}, ipvs.ErrInvalid, "missing"},
		{"no settings", ipvs.Change{Op: ipvs.SetSync}, ipvs.ErrInvalid, "missing"},
		{"no addresses", ipvs.Change{Op: ipvs.SetVIPs}, ipvs.ErrInvalid, "set-vips: the addresses are missing"},
		{"an address twice", ipvs.Change{Op: ipvs.SetVIPs, VIPs: &ipvs.VIPs{Listed: true, List: []ipvs.VIP{vip("10.9.0.1/32"), vip("10.9.0.1/24")}}}, ipvs.ErrInvalid, "vips[1].address: duplicate"},
		{"auto with a list", ipvs.Change{Op: ipvs.SetVIPs, VIPs: &ipvs.VIPs{List: []ipvs.VIP{vip("10.9.0.1/32")}}}, ipvs.ErrInvalid, "vips: auto excludes a list"},
		{"unknown operation", ipvs.Change{Op: "flush"}, ipvs.ErrInvalid, "flush"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := have.Apply(tt.change)
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got error %v, want one that matches %v and says %q", err, tt.is, tt.says)
			}
			if !got.Equal(ipvs.Table{}) {
				t.Errorf("a refused change returned a table")
			}
		})
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	have := table(t, `{"services":[{"service":"tcp://10.9.0.1:80","scheduler":"rr"}]}`)
	before, _ := json.Marshal(have)
	key := mustKey(t, "tcp://10.9.0.1:80")
	_, err := have.Apply(
		ipvs.Change{Op: ipvs.AddDestination, Key: key, Destination: &ipvs.Destination{Addr: netip.MustParseAddrPort("10.9.1.1:80"), Forward: ipvs.Masq, Weight: 1}},
		ipvs.Change{Op: ipvs.DeleteService, Key: mustKey(t, "tcp://10.9.0.9:80")},
	)
	if err == nil || !strings.HasPrefix(err.Error(), "change 2: ") {
		t.Fatalf("got error %v, want one about change 2", err)
	}
	if after, _ := json.Marshal(have); string(after) != string(before) {
		t.Errorf("the table changed:\nbefore %s\n after %s", before, after)
	}
}

func TestSetServiceKeepsDestinations(t *testing.T) {
	have := table(t, `{"services":[{"service":"udp://10.9.0.1:53","scheduler":"sh","destinations":[{"address":"10.9.1.1:53"}]}]}`)
	key := mustKey(t, "udp://10.9.0.1:53")
	got, err := have.Apply(ipvs.Change{Op: ipvs.SetService, Key: key, Service: &ipvs.Service{Key: key, Scheduler: "sh", Flags: ipvs.Flag2 | ipvs.OnePacket}})
	if err != nil {
		t.Fatal(err)
	}
	want := table(t, `{"services":[{"service":"udp://10.9.0.1:53","scheduler":"sh","flags":["one-packet","sh-port"],"destinations":[{"address":"10.9.1.1:53"}]}]}`)
	if !got.Equal(want) {
		g, _ := json.Marshal(got)
		t.Errorf("got %s", g)
	}
}

func mustKey(t *testing.T, s string) ipvs.ServiceKey {
	t.Helper()
	key, err := ipvs.ParseServiceKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
