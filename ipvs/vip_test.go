package ipvs_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func vip(prefix string) ipvs.VIP { return ipvs.VIP{Prefix: netip.MustParsePrefix(prefix)} }

// vipNames are t's virtual addresses as text.
func vipNames(t ipvs.Table) string {
	var names []string
	for _, v := range t.VIPs() {
		names = append(names, strings.TrimSpace(v.Prefix.String()+" "+v.Network))
	}
	return strings.Join(names, ", ")
}

func TestVIPs(t *testing.T) {
	const services = `"services":[{"service":"tcp://10.9.0.100:443"},{"service":"tcp://10.9.0.100:80"},{"service":"udp://10.9.0.100:53","vip":false},
		{"service":"tcp://10.9.0.9:80","vip":true},{"service":"tcp://10.9.0.20:80","vip":false},{"service":"tcp://[2001:db8::1]:80"},
		{"service":"tcp://[fe80::1]:80"},{"service":"tcp://127.0.0.1:80"},{"service":"fwmark://7"}]}`
	for _, tt := range []struct{ name, vips, want string }{
		{"absent", ``, "10.9.0.9/32, 10.9.0.100/32, 2001:db8::1/128"},
		{"auto", `"vips":"auto",`, "10.9.0.9/32, 10.9.0.100/32, 2001:db8::1/128"},
		{"null", `"vips":null,`, "10.9.0.9/32, 10.9.0.100/32, 2001:db8::1/128"},
		{"none", `"vips":[],`, ""},
		{
			"list", `"vips":[{"address":"2001:db8::5"},{"address":"10.9.0.20"},{"address":"10.1.0.1/24","network":"inside"},{"address":"192.0.2.1/31"}],`,
			"10.1.0.1/24 inside, 10.9.0.20/32, 192.0.2.1/31, 2001:db8::5/128",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := vipNames(table(t, "{"+tt.vips+services)); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestVIPsDocument(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`{"vips":"auto","services":[]}`, `{"services":[]}`},
		{`{"vips":[],"services":[]}`, `{"vips":[],"services":[]}`},
		{
			`{"vips":[{"address":"10.9.0.2"},{"address":"10.1.0.1/24","network":"inside"}],"services":[{"service":"tcp://10.9.0.1:80","vip":false}]}`,
			`{"vips":[{"address":"10.1.0.1/24","network":"inside"},{"address":"10.9.0.2/32"}],"services":[{"service":"tcp://10.9.0.1:80","vip":false,"scheduler":"wlc"}]}`,
		},
		{`{"services":[{"service":"tcp://10.9.0.1:80","vip":true}]}`, `{"services":[{"service":"tcp://10.9.0.1:80","scheduler":"wlc"}]}`},
	} {
		got, err := json.Marshal(table(t, tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.text, diff)
		}
	}
	if text, err := json.Marshal(ipvs.VIPs{}); err != nil || string(text) != `"auto"` {
		t.Errorf("auto is written as %s, %v", text, err)
	}
}

func TestMaxVIPs(t *testing.T) {
	list := func(n int) ipvs.Document {
		v := ipvs.VIPs{Listed: true}
		for i := range n {
			v.List = append(v.List, vip(fmt.Sprintf("10.9.%d.%d/32", i>>8, i&255)))
		}
		return ipvs.Document{VIPs: &v}
	}
	if _, err := list(ipvs.MaxVIPs).Table(); err != nil {
		t.Errorf("as many as the limit: %v", err)
	}
	if _, err := list(ipvs.MaxVIPs + 1).Table(); err == nil || err.Error() != "vips: 1025 addresses, the limit is 1024" {
		t.Errorf("one more: %v", err)
	}
}

// TestVIPsAreNotInTheKernel: to a kernel, tables that differ in their virtual
// addresses only are the same.
func TestVIPsAreNotInTheKernel(t *testing.T) {
	plain := table(t, `{"services":[{"service":"tcp://10.9.0.1:80"}]}`)
	for _, text := range []string{
		`{"vips":[],"services":[{"service":"tcp://10.9.0.1:80"}]}`,
		`{"vips":[{"address":"10.9.0.7"}],"services":[{"service":"tcp://10.9.0.1:80"}]}`,
		`{"services":[{"service":"tcp://10.9.0.1:80","vip":false}]}`,
	} {
		other := table(t, text)
		if changes := ipvs.Diff(plain.Bare(), other.Bare()); len(changes) > 0 {
			t.Errorf("%s: the kernel would be changed: %v", text, changes)
		}
		if plain.Equal(other) {
			t.Errorf("%s: the tables are the same", text)
		}
	}
}

// TestTableOwnsItsVIPs: what a caller does to a list afterwards, or to a result,
// does not reach the table.
func TestTableOwnsItsVIPs(t *testing.T) {
	v := ipvs.VIPs{Listed: true, List: []ipvs.VIP{vip("10.9.0.2/32"), vip("10.9.0.1/32")}}
	fromDocument, err := ipvs.Document{VIPs: &v}.Table()
	if err != nil {
		t.Fatal(err)
	}
	applied, err := ipvs.Table{}.Apply(ipvs.Change{Op: ipvs.SetVIPs, VIPs: &v})
	if err != nil {
		t.Fatal(err)
	}
	v.List[0] = vip("10.9.0.9/32")
	for _, have := range []ipvs.Table{fromDocument, applied} {
		have.VIPs()[0] = vip("10.9.0.8/32")
		if got := vipNames(have); got != "10.9.0.1/32, 10.9.0.2/32" {
			t.Errorf("the table has %s", got)
		}
	}
}
