package ipvs_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestDocumentRefuses(t *testing.T) {
	service := func(fields string) string { return `{"services":[{"service":"tcp://10.9.0.1:80",` + fields + `}]}` }
	dest := func(fields string) string {
		return service(`"destinations":[{"address":"10.9.1.1:80",` + fields + `}]`)
	}
	vips := func(list string) string { return `{"vips":[` + list + `],"services":[]}` }
	tests := []struct {
		name, text, says string
	}{
		{"unknown field", service(`"schedular":"rr"`), `unknown field "schedular"`},
		{"unknown destination field", dest(`"wieght":1`), `unknown field "wieght"`},
		{"unknown scheduler", service(`"scheduler":"quick"`), `services[0].scheduler: unknown scheduler "quick"`},
		{"16-character scheduler", service(`"scheduler":"abcdefghijklmnop"`), "services[0].scheduler: \"abcdefghijklmnop\" has 16 characters, the kernel's limit is 15"},
		{"flag of another scheduler", service(`"scheduler":"rr","flags":["sh-port"]`), "services[0].flags: sh-port needs scheduler sh, not rr"},
		{"unknown flag", service(`"flags":["fast"]`), `unknown flag "fast"`},
		{"one-packet tcp", service(`"flags":["one-packet"]`), "services[0].flags: one-packet is for udp and fwmark"},
		{"persistence without a timeout", service(`"persistence":{"netmask":"255.255.255.0"}`), "services[0].persistence.netmask: needs persistence.timeout"},
		{"persistence too long", service(`"persistence":{"timeout":"1000h"}`), "services[0].persistence.timeout: 1000h is longer than the limit of 744h"},
		{"half a second", service(`"persistence":{"timeout":"1500ms"}`), "not a whole number of seconds"},
		{"prefix for IPv4", service(`"persistence":{"timeout":"5m","prefix":64}`), "services[0].persistence.prefix: is for IPv6 services; this one is IPv4"},
		{"prefix for IPv4 without a timeout", service(`"persistence":{"timeout":0,"prefix":64}`), "services[0].persistence.prefix: is for IPv6 services; this one is IPv4"},
		{"netmask for IPv6", `{"services":[{"service":"tcp://[2001:db8::1]:80","persistence":{"timeout":"5m","netmask":"255.0.0.0"}}]}`, "services[0].persistence.netmask: is for IPv4 services; this one is IPv6, which has prefix"},
		{"prefix without a timeout", `{"services":[{"service":"fwmark6://7","persistence":{"timeout":0,"prefix":64}}]}`, "services[0].persistence.prefix: needs persistence.timeout"},
		{"engine without a timeout", `{"services":[{"service":"udp://10.9.0.1:53","persistence":{"timeout":0,"engine":"sip"}}]}`, "services[0].persistence.engine: needs persistence.timeout"},
		{"netmask with a gap", service(`"persistence":{"timeout":"5m","netmask":"255.0.255.0"}`), "services[0].persistence.netmask: 255.0.255.0 has a gap or is inverted"},
		{"netmask with a late gap", service(`"persistence":{"timeout":"5m","netmask":"255.255.0.255"}`), "services[0].persistence.netmask: 255.255.0.255 has a gap or is inverted"},
		{"inverted netmask", service(`"persistence":{"timeout":"5m","netmask":"0.0.0.255"}`), "services[0].persistence.netmask: 0.0.0.255 has a gap or is inverted"},
		{"netmask of nothing", service(`"persistence":{"timeout":"5m","netmask":"0.0.0.0"}`), "services[0].persistence.netmask: 0.0.0.0 is not an IPv4 netmask"},
		{"unknown engine", service(`"persistence":{"timeout":"5m","engine":"http"}`), "services[0].persistence.engine"},
		{"port 0 without persistence", `{"services":[{"service":"tcp://10.9.0.1:0"}]}`, "services[0].service: port 0"},
		{"bad address", `{"services":[{"service":"tcp://10.9.0.300:80"}]}`, "10.9.0.300:80"},
		{"unspecified address", `{"services":[{"service":"tcp://0.0.0.0:80"}]}`, "services[0].service: address 0.0.0.0 is not a unicast address"},
		{"v4 in v6", `{"services":[{"service":"tcp://[::ffff:10.9.0.1]:80"}]}`, "write 10.9.0.1"},
		{"mark 0", `{"services":[{"service":"fwmark://0"}]}`, "from 1 to 4294967295"},
		{"duplicate service", `{"services":[{"service":"tcp://10.9.0.1:80"},{"service":"udp://10.9.0.1:80"},{"service":"tcp://10.9.0.1:80"}]}`, "services[2].service: duplicate: tcp://10.9.0.1:80 is also services[0]"},
		{"duplicate destination", service(`"destinations":[{"address":"10.9.1.2:80"},{"address":"10.9.1.1:80"},{"address":"10.9.1.2:80"}]`), "services[0].destinations[2].address: duplicate"},
		{"weight -1", dest(`"weight":-1`), "services[0].destinations[0].weight: -1 is not from 0 to 2147483647"},
		{"lower above upper", dest(`"upper":5,"lower":6`), "services[0].destinations[0].lower: 6 is not from 0 to upper (5)"},
		{"lower alone", dest(`"lower":6`), "services[0].destinations[0].lower: needs upper"},
		{"droute with another port", service(`"destinations":[{"address":"10.9.1.1:8080"}]`), "services[0].destinations[0].address: port 8080 differs"},
		{"tunnel with another port", service(`"destinations":[{"address":"10.9.1.1:8080","forward":"tunnel"}]`), "port 8080 differs"},
		{"other family with droute", service(`"destinations":[{"address":"[2001:db8::1]:80"}]`), "only tunnel destinations may differ"},
		{"other family with sync", service(`"destinations":[{"address":"[2001:db8::1]:80","forward":"tunnel"}]`), "services[0].destinations[0].address: IPv6 in an IPv4 service is possible only with sync: {enabled: false}"},
		{"gue without port", dest(`"forward":"tunnel","tunnel":{"type":"gue"}`), "services[0].destinations[0].tunnel.port"},
		{"gre with remcsum", dest(`"forward":"tunnel","tunnel":{"type":"gre","checksum":"remcsum"}`), "services[0].destinations[0].tunnel.checksum"},
		{"tunnel options with masq", dest(`"forward":"masq","tunnel":{"type":"gre"}`), "services[0].destinations[0].tunnel: is for forward: tunnel"},
		{"control character in a name", service(`"name":"a\u0007"`), "services[0].name: holds a control character"},
		{"long comment", service(`"comment":"` + strings.Repeat("x", 257) + `"`), "services[0].comment: has 257 bytes, the limit is 256"},
		{"sync id 0", `{"sync":{"id":0},"services":[]}`, "sync id 0"},
		{"sync id 256", `{"sync":{"id":256},"services":[]}`, "sync.id: 256 is not from 1 to 255"},
		{"sync maxlen", `{"sync":{"maxlen":9189},"services":[]}`, "sync.maxlen: 9189 is above 9188"},
		{"sync group", `{"sync":{"group":"10.0.0.1"},"services":[]}`, "sync.group: 10.0.0.1 is not an IPv4 multicast address"},
		{"two groups", `{"sync":{"group":"224.0.0.81","group6":"ff02::81"},"services":[]}`, "sync.group6: excludes group"},
		{"link-local destination", `{"services":[{"service":"tcp://[2001:db8::1]:80","destinations":[{"address":"[fe80::1]:80"}]}]}`, "services[0].destinations[0].address: fe80::1 is link-local"},
		{"service for another protocol", `{"services":[{"service":"protocol-1://10.9.0.1:80"}]}`, "services[0].service: protocol-1 is not tcp, udp or sctp"},
		{"timeouts for kernels with 1000 ticks a second", `{"timeouts":{"tcp":"577h"},"services":[]}`, "timeouts.tcp: 577h is longer than the limit of 576h"},
		{"timeouts", `{"timeouts":{"udp":"800h"},"services":[]}`, "timeouts.udp: 800h is longer"},
		{"vips of a service in words", service(`"vip":"no"`), "want true or false"},
		{"vip of a mark", `{"services":[{"service":"fwmark://7","vip":false}]}`, "services[0].vip: is for services with an address, not for fwmark"},
		{"vips in a word", `{"vips":"all","services":[]}`, `vips: "all" is neither auto nor a list`},
		{"vips as a mapping", `{"vips":{},"services":[]}`, "vips: want auto or a list"},
		{"unknown field of a vip", vips(`{"address":"10.9.0.1","nat":1}`), `unknown field "nat"`},
		{"vip without address", vips(`{"network":"inside"}`), `"" is not ADDRESS or ADDRESS/LENGTH`},
		{"vip with a zone", vips(`{"address":"fe80::1%eth0"}`), `"fe80::1%eth0" is not ADDRESS`},
		{"multicast vip", vips(`{"address":"224.0.0.1"}`), "vips[0].address: address 224.0.0.1 is not a unicast address"},
		{"unspecified vip", vips(`{"address":"::"}`), "vips[0].address: address :: is not a unicast address"},
		{"v4 in v6 vip", vips(`{"address":"::ffff:10.9.0.1"}`), "vips[0].address: address ::ffff:10.9.0.1 is an IPv4 address written as IPv6"},
		{"link-local vip", vips(`{"address":"10.9.0.1"},{"address":"fe80::1/64"}`), "vips[1].address: address fe80::1 is link-local"},
		{"link-local IPv4 vip", vips(`{"address":"169.254.1.1"}`), "vips[0].address: address 169.254.1.1 is link-local"},
		{"loopback vip", vips(`{"address":"127.0.0.2"}`), "vips[0].address: address 127.0.0.2 is a loopback address"},
		{"vip of length 0", vips(`{"address":"10.9.0.1/0"}`), "vips[0].address: 10.9.0.1/0: the length is not from 1 to 32"},
		{"a subnet", vips(`{"address":"10.9.0.0/24"}`), "vips[0].address: 10.9.0.0/24 is the subnet itself"},
		{"a broadcast address", vips(`{"address":"10.9.3.255/22"}`), "vips[0].address: 10.9.3.255/22 is the broadcast address"},
		{"vip twice", vips(`{"address":"10.9.0.2"},{"address":"10.9.0.1"},{"address":"10.9.0.2/24","network":"b"}`), "vips[2].address: duplicate: 10.9.0.2 is also vips[0]"},
		{"long network", vips(`{"address":"10.9.0.1","network":"abcdefghijklmnop"}`), "vips[0].network: network \"abcdefghijklmnop\" has 16 characters, not from 1 to 15"},
		{"network in capitals", vips(`{"address":"10.9.0.1","network":"Inside"}`), "vips[0].network: network \"Inside\" has a character other than a-z, 0-9 and '-'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got ipvs.Table
			err := json.Unmarshal([]byte(tt.text), &got)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got error %v, want one that says %q", err, tt.says)
			}
		})
	}
}

func TestDocumentReportsEveryBrokenRule(t *testing.T) {
	doc := ipvs.Document{Services: []ipvs.Service{{Scheduler: "quick", Persistence: ipvs.Persistence{Timeout: ipvs.MaxTimeout + 1}}}}
	_, err := doc.Table()
	if !errors.Is(err, ipvs.ErrInvalid) {
		t.Fatalf("%v does not match ErrInvalid", err)
	}
	for _, path := range []string{"services[0].service", "services[0].scheduler", "services[0].persistence.timeout"} {
		if !strings.Contains(err.Error(), path+": ") {
			t.Errorf("the error does not name %s: %v", path, err)
		}
	}
}

func TestDocumentDefaults(t *testing.T) {
	got := table(t, `{"services":[{"service":"tcp://10.9.0.1:80","destinations":[{"address":"10.9.1.1:80"}]}]}`)
	want := table(t, `{"sync":{"enabled":true},"services":[{"service":"tcp://10.9.0.1:80","scheduler":"wlc","destinations":[{"address":"10.9.1.1:80","forward":"droute","weight":1}]}]}`)
	if !got.Equal(want) {
		t.Errorf("a document that leaves the defaults out means another table")
	}
}

func TestDocumentRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawTable(t)
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var fromJSON ipvs.Table
		if err := json.Unmarshal(text, &fromJSON); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !fromJSON.Equal(want) {
			t.Fatalf("JSON lost something: %s", text)
		}
	})
}

func FuzzTableJSON(f *testing.F) {
	f.Add(`{"sync":{"enabled":true,"id":7},"timeouts":{"tcp":"15m"},"services":[{"service":"tcp://10.9.0.100:80","scheduler":"wrr","persistence":{"timeout":"5m","netmask":"255.255.255.0"},"flags":[],"destinations":[{"address":"10.9.0.22:80","forward":"tunnel","weight":2,"tunnel":{"type":"gue","port":6080,"checksum":"csum"}}]}]}`)
	f.Add(`{"vips":[{"address":"10.9.0.100"},{"address":"2001:db8::1/64","network":"inside"}],"services":[{"service":"tcp://10.9.0.100:80","vip":false}]}`)
	f.Add(`{"services":[{"service":"fwmark6://7"}]}`)
	f.Add(`{"services":[{"service":"tcp://[::]:80"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var first, second ipvs.Table
		if json.Unmarshal([]byte(text), &first) != nil {
			return
		}
		again, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(again, &second); err != nil || !first.Equal(second) {
			t.Fatalf("%s was read, but its own form %s is not the same: %v", text, again, err)
		}
	})
}

// TestEqualSeesEveryField fails when a field is added that the comparison of
// services forgets.
func TestEqualSeesEveryField(t *testing.T) {
	typ := reflect.TypeFor[ipvs.Service]()
	for i := range typ.NumField() {
		var a, b ipvs.Service
		v := reflect.ValueOf(&b).Elem().Field(i)
		switch v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Uint8:
			v.SetUint(1)
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.Struct:
			v.FieldByNameFunc(func(n string) bool { return n == "Timeout" || n == "FWMark" }).SetUint(1)
		default:
			t.Fatalf("field %s: extend this test to %s", typ.Field(i).Name, v.Kind())
		}
		if a.Equal(&b) {
			t.Errorf("Equal does not see %s", typ.Field(i).Name)
		}
	}
}
