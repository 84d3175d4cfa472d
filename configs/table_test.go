package configs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestParseTableRefuses(t *testing.T) {
	service := func(lines string) string { return "services:\n  - service: tcp://10.9.0.100:80\n" + lines }
	destination := func(fields string) string {
		return service("    destinations:\n      - {address: \"10.9.0.21:80\"}\n      - {address: \"10.9.0.22:80\", " + fields + "}\n")
	}
	tests := []struct{ name, text, says string }{
		{"the whole message", destination("weight: -1"), `t.yaml:5: services[0].destinations[1].weight: -1 is not from 0 to 2147483647
          - {address: "10.9.0.22:80", weight: -1}
                                              ^`},
		{"unknown key", "vipz: []\nservices: []\n", "t.yaml:1: vipz: unknown key; want one of sync, timeouts, vips, services"},
		{"unknown key of a service", service("    schedular: rr\n"), "t.yaml:3: services[0].schedular: unknown key; want one of service, name, comment, vip, scheduler, persistence, flags, destinations"},
		{"unknown key of a destination", destination("wieght: 1"), "t.yaml:5: services[0].destinations[1].wieght: unknown key"},
		{"unknown key of persistence", service("    persistence: {timout: 5m}"), "t.yaml:3: services[0].persistence.timout: unknown key"},
		{"unknown key of a tunnel", destination("forward: tunnel, tunnel: {kind: gue}"), "services[0].destinations[1].tunnel.kind: unknown key; want one of type, port, checksum"},
		{"unknown key of sync", "sync:\n  enabeld: true\nservices: []", "t.yaml:2: sync.enabeld: unknown key"},
		{"unknown key of timeouts", "timeouts: {sctp: 5m}\nservices: []", "t.yaml:1: timeouts.sctp: unknown key; want one of tcp, tcp_fin, udp"},
		{"key twice", service("    scheduler: rr\n    scheduler: wrr\n"), "t.yaml:4: "},
		{"empty file", "", "t.yaml: services: is missing; \"services: []\" means none"},
		{"only comments", "# nothing\n", "services: is missing"},
		{"no services", "sync: {id: 7}\n", "services: is missing"},
		{"services without a value", "services:\n", "t.yaml:1: services: has no value; \"services: []\" means none"},
		{"null", "null\n", "t.yaml:1: want a mapping, not nothing"},
		{"a list", "- service: tcp://10.9.0.100:80\n", "t.yaml:1: want a mapping, not a list"},
		{"services as mapping", "services: {a: b}\n", "t.yaml:1: services: want a list, not a mapping"},
		{"empty service", "services:\n  -\n", "services[0]: want a mapping such as {service: \"tcp://10.9.0.100:80\"}, not nothing"},
		{"services null", "services: null\n", "t.yaml:1: services: has no value; \"services: []\" means none"},
		{"service without a value", "services:\n  - service:\n", "t.yaml:2: services[0].service: has no value; want one like tcp://10.9.0.100:80"},
		{"destination without a value", service("    destinations:\n      - address:\n"), "t.yaml:4: services[0].destinations[0].address: has no value; want one like \"10.9.0.21:80\""},
		{"scheduler without a value", service("    scheduler:\n"), "t.yaml:3: services[0].scheduler: has no value; leave the key out to have the default"},
		{"empty scheduler", service("    scheduler: \"\"\n"), "t.yaml:3: services[0].scheduler: is empty; leave the key out to have wlc"},
		{"destination as a word", service("    destinations: [\"10.9.0.21:80\"]\n"), "t.yaml:3: services[0].destinations[0]: want a mapping such as {address: \"10.9.0.21:80\"}, not \"10.9.0.21:80\""},
		{"tunnel as a word", destination("forward: tunnel, tunnel: gue"), "services[0].destinations[1].tunnel: want a mapping such as {type: gue, port: 6080}, not \"gue\""},
		{"persistence as a number", service("    persistence: 300\n"), "t.yaml:3: services[0].persistence: want a mapping such as {timeout: 5m}, not \"300\""},
		{"empty persistence", service("    persistence: {}\n"), "t.yaml:3: services[0].persistence: needs timeout, such as {timeout: 5m}"},
		{"persistence without timeout", service("    persistence: {netmask: 255.255.255.255}\n"), "t.yaml:3: services[0].persistence: needs timeout, such as {timeout: 5m}"},
		{"persistence of no time", service("    persistence: {timeout: 0}\n"), "t.yaml:3: services[0].persistence.timeout: 0 is not from 1s to 744h; leave persistence out"},
		{"persistence timeout without a value", service("    persistence:\n      timeout:\n"), "t.yaml:4: services[0].persistence.timeout: has no value; say how long"},
		{"service without key", "services:\n  - {scheduler: rr}\n", "t.yaml:2: services[0].service: is missing"},
		{"destination without address", service("    destinations: [{weight: 1}]"), "t.yaml:3: services[0].destinations[0].address: is missing"},
		{"service URL", "services:\n  - service: http://10.9.0.100:80\n", "t.yaml:2: services[0].service: service \"http://10.9.0.100:80\": unknown scheme"},
		{"bad address", "services:\n  - service: tcp://10.9.0.300:80\n", "t.yaml:2: services[0].service: service \"tcp://10.9.0.300:80\": \"10.9.0.300:80\" is not ADDRESS:PORT or [IPv6]:PORT: \"10.9.0.300\" is not an IP address\n"},
		{"bad destination", service("    destinations: [{address: 10.9.0.21}]"), "t.yaml:3: services[0].destinations[0].address: \"10.9.0.21\" is not ADDRESS:PORT or [IPv6]:PORT"},
		{"port of a destination", service("    destinations: [{address: \"10.9.0.21:70000\"}]"), "t.yaml:3: services[0].destinations[0].address: \"10.9.0.21:70000\" is not ADDRESS:PORT or [IPv6]:PORT: port \"70000\" is not a number from 0 to 65535"},
		{"host name", "services:\n  - service: tcp://lb.example.com:80\n", "\"lb.example.com\" is not an IP address, and host names are not accepted"},
		{"IPv6 without quotes in braces", service("    destinations:\n      - {address: [2001:db8::1]:80, weight: 1}\n"), "t.yaml:4: did not find expected ',' or '}' while parsing a flow mapping; put quotes around an [IPv6]:PORT\n"},
		{"IPv6 service without quotes in braces", "services: [{service: tcp://[2001:db8::1]:80}]\n", "; put quotes around an [IPv6]:PORT\n"},
		{"IPv6 without quotes", service("    destinations:\n      - address: [2001:db8::1]:80\n"), "t.yaml:4: did not find expected key while parsing a block mapping; put quotes around an [IPv6]:PORT\n"},
		{"unknown scheduler", service("    scheduler: quick\n"), "t.yaml:3: services[0].scheduler: unknown scheduler \"quick\""},
		{"16-character scheduler", service("    scheduler: abcdefghijklmnop\n"), "t.yaml:3: services[0].scheduler: \"abcdefghijklmnop\" has 16 characters"},
		{"unknown forwarding method", destination("forward: dr"), "t.yaml:5: services[0].destinations[1].forward: unknown forwarding method \"dr\", want masq, droute or tunnel"},
		{"unknown flag", service("    flags: [one-packet, fast]\n"), "t.yaml:3: services[0].flags[1]: unknown flag \"fast\""},
		{"flags as a word", service("    flags: one-packet\n"), "t.yaml:3: services[0].flags: want a list, not \"one-packet\""},
		{"flag of another scheduler", service("    scheduler: rr\n    flags: [sh-port]\n"), "t.yaml:4: services[0].flags: sh-port needs scheduler sh"},
		{"half a second", service("    persistence: {timeout: 1500ms}\n"), "t.yaml:3: services[0].persistence.timeout: duration \"1500ms\" is not a whole number"},
		{"fraction", destination("weight: 1.5"), "t.yaml:5: services[0].destinations[1].weight: \"1.5\" is not a whole number"},
		{"weight too large", destination("weight: 2147483648"), "weight: 2147483648 is not from 0 to 2147483647"},
		{"lower above upper", destination("upper: 5, lower: 6"), "t.yaml:5: services[0].destinations[1].lower: 6 is not from 0 to upper (5)"},
		{"droute with another port", service("    destinations:\n      - {address: \"10.9.0.21:8080\"}\n"), "t.yaml:4: services[0].destinations[0].address: port 8080 differs"},
		{"gue without port", destination("forward: tunnel, tunnel: {type: gue}"), "t.yaml:5: services[0].destinations[1].tunnel.port: gue needs a UDP port"},
		{"mixed family", service("    destinations:\n      - {address: \"[2001:db8::1]:80\", forward: tunnel}\n"), "t.yaml:4: services[0].destinations[0].address: IPv6 in an IPv4 service is possible only with sync: {enabled: false}"},
		{"duplicate service", "services:\n  - service: tcp://10.9.0.1:80\n  - service: tcp://10.9.0.1:80\n", "t.yaml:3: services[1].service: duplicate"},
		{"duplicate destination", service("    destinations:\n      - address: 10.9.0.21:80\n      - address: 10.9.0.21:80\n"), "t.yaml:5: services[0].destinations[1].address: duplicate"},
		{"sync id 0", "sync: {id: 0}\nservices: []", "t.yaml:1: sync.id: 0 is not from 1 to 255"},
		{"sync enabled: yes", "sync: {enabled: yes}\nservices: []", "t.yaml:1: sync.enabled: want true or false, not \"yes\""},
		{"sync maxlen", "sync:\n  maxlen: 9189\nservices: []", "t.yaml:2: sync.maxlen: 9189 is above 9188"},
		{"sync group", "sync: {group: 10.0.0.1}\nservices: []", "t.yaml:1: sync.group: 10.0.0.1 is not an IPv4 multicast address"},
		{"timeouts", "services: []\ntimeouts:\n  udp: 800h\n", "t.yaml:3: timeouts.udp: 800h is longer"},
		{"vips in a word", "vips: all\nservices: []\n", "t.yaml:1: vips: \"all\" is neither auto nor a list"},
		{"vips as a mapping", "vips: {address: 10.9.0.1}\nservices: []\n", "t.yaml:1: vips: want auto or a list, not a mapping"},
		{"vips without a value", "vips:\nservices: []\n", "t.yaml:1: vips: has no value"},
		{"vip as a word", "vips: [10.9.0.1]\nservices: []\n", "t.yaml:1: vips[0]: want a mapping such as {address: 10.9.0.100}, not \"10.9.0.1\""},
		{"vip without address", "services: []\nvips:\n  - {network: inside}\n", "t.yaml:3: vips[0].address: is missing"},
		{"unknown key of a vip", "vips: [{address: 10.9.0.1, net: inside}]\nservices: []\n", "t.yaml:1: vips[0].net: unknown key; want one of address, network"},
		{"vip in words", "vips: [{address: here}]\nservices: []\n", "t.yaml:1: vips[0].address: \"here\" is not ADDRESS or ADDRESS/LENGTH: \"here\" is not an IP address, and host names are not accepted"},
		{"vip of a long length", "vips: [{address: 10.9.0.1/33}]\nservices: []\n", "t.yaml:1: vips[0].address: \"10.9.0.1/33\" is not ADDRESS or ADDRESS/LENGTH: length \"33\" is not a number from 0 to 32"},
		{"link-local vip", "services: []\nvips:\n  - {address: 10.9.0.1}\n  - {address: \"fe80::1\"}\n", "t.yaml:4: vips[1].address: address fe80::1 is link-local"},
		{"vip twice", "services: []\nvips:\n  - address: 10.9.0.1\n  - address: 10.9.0.1/24\n", "t.yaml:4: vips[1].address: duplicate: 10.9.0.1 is also vips[0]"},
		{"network in capitals", "services: []\nvips:\n  - address: 10.9.0.1\n    network: Inside\n", "t.yaml:4: vips[0].network: network \"Inside\" has a character other than"},
		{"empty network", "services: []\nvips:\n  - address: 10.9.0.1\n    network: \"\"\n", "t.yaml:4: vips[0].network: network \"\" has 0 characters"},
		{"too many vips", "services: []\nvips:\n" + strings.Repeat("  - address: 10.9.0.1\n", 1025), "t.yaml:2: vips: 1025 addresses, the limit is 1024"},
		{"vip of a service in words", service("    vip: no\n"), "t.yaml:3: services[0].vip: want true or false, not \"no\""},
		{"vip of a mark", "services:\n  - service: fwmark://7\n    vip: false\n", "t.yaml:3: services[0].vip: is for services with an address, not for fwmark"},
		{"a JSON key", `{"services": [{"service": "tcp://10.9.0.100:80", "x": 1}]}`, "t.yaml:1: services[0].x: unknown key"},
		{"unknown alias", "services: *all\n", "t.yaml:1: unknown anchor 'all' referenced\n    services: *all\n              ^"},
		{"alias within itself", "services: &all\n  - service: tcp://10.9.0.1:80\n    destinations: *all\n", "t.yaml:3: services[0].destinations[0].destinations: unknown key"},
		{"alias as a key", "services:\n  - service: &s tcp://10.9.0.1:80\n  - *s : tcp\n", "t.yaml:3: services[1].tcp://10.9.0.1:80: unknown key"},
		{"list as a key", "? [a]\n: b\n", "t.yaml:1: unknown key"},
		{"merge key", "services:\n  - <<: {service: tcp://10.9.0.1:80}\n", "t.yaml:2: services[0].<<: unknown key"},
		{"tag", service("    name: !!binary aGVsbG8=\n"), "t.yaml:3: services[0].name: want a single value, not a value with the tag !!binary"},
		{"tag of a mapping", "services:\n  - !!set {service}\n", "t.yaml:2: services[0]: want a mapping such as {service: \"tcp://10.9.0.100:80\"}, not a value with the tag !!set"},
		{"flow mapping without end", service("    destinations:\n      - {address: \"10.9.0.21:80\"\n      - {address: \"10.9.0.22:80\"}\n"), "t.yaml:5: did not find expected ',' or '}' while parsing a flow mapping that begins in line 4\n          - {address: \"10.9.0.22:80\"}\n          ^"},
		{"list without end", "services: [\n  {service: \"tcp://10.9.0.1:80\"}\n\n", "t.yaml:1: did not find expected ',' or ']' while parsing a flow sequence\n    services: [\n              ^"},
		{"quotes without end", service("    name: \"web\n    scheduler: rr\n"), "t.yaml:3: found unexpected end of stream while scanning a quoted scalar\n        name: \"web\n              ^"},
		{"less indented", service("   scheduler: rr\n"), "t.yaml:3: did not find expected '-' indicator while parsing a block collection that begins in line 2\n       scheduler: rr\n       ^"},
		{"tab", "services:\n\t- service: tcp://10.9.0.1:80\n", "t.yaml:2: found character that cannot start any token"},
		{"octet of another encoding", service("    comment: \"ä\xe4\"\n"), "t.yaml:3: invalid trailing UTF-8 octet"},
		{"control character", service("    comment: \"ä\x01\"\n"), "t.yaml:3: control characters are not allowed (value: 1)\n        comment: \"ä\x01\"\n                   ^"},
		{"second document", "services: []\n---\nservices: []\n", "t.yaml:3: a second document"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := ParseTable([]byte(tt.text), "t.yaml")
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %+v, error:\n%v\nwant one that says:\n%s", doc, err, tt.says)
			}
			if !errors.Is(err, ipvs.ErrInvalid) {
				t.Errorf("%v does not match ErrInvalid", err)
			}
		})
	}
}

func TestParseTableReportsManyMistakes(t *testing.T) {
	text := "services:\n" + strings.Repeat("  - {service: tcp://10.9.0.1, weight: 1}\n", 100)
	_, err := ParseTable([]byte(text), "t.yaml")
	if n := strings.Count(err.Error(), "t.yaml:"); n != maxErrors+1 {
		t.Errorf("%d errors are reported, want %d and a count of the rest", n, maxErrors)
	}
	if !strings.Contains(err.Error(), "and 180 more") {
		t.Errorf("the rest is not counted: %v", err)
	}
}

func TestParseTableShortensLongLines(t *testing.T) {
	text := `{"services":[` + strings.Repeat(`{"service":"udp://10.9.0.1:53"},`, 1000) + `{"service":"x"}]}`
	_, err := ParseTable([]byte(text), "t.json")
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 3 || len(lines[1]) > 130 || lines[1][len(lines[2])-1:len(lines[2])+2] != `"x"` {
		t.Errorf("the mark is not below the value:\n%v", err)
	}
}

func TestParseTableAnchors(t *testing.T) {
	doc, err := ParseTable([]byte(`
services:
  - service: tcp://10.9.0.1:80
    destinations: &farm
      - {address: "10.9.0.21:80"}
  - service: tcp://10.9.0.2:80
    destinations: *farm
`), "t.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(doc.Services[0].Destinations, doc.Services[1].Destinations, compareText); diff != "" {
		t.Errorf("the alias differs (-want +got)\n%s", diff)
	}
}

var compareText = cmp.Comparer(func(a, b ipvs.Destination) bool { return a == b })

func TestExampleTable(t *testing.T) {
	data, err := os.ReadFile("table.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := ParseTable(data, "table.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const want = `sync: {enabled: true, id: 7}
timeouts: {tcp: 15m, tcp_fin: 2m, udp: 5m}
vips:
  - {address: "10.9.0.100/32"}
  - {address: "2001:db8::100/128"}
  - {address: "10.1.0.1/24", network: "inside"}
services:
  - service: tcp://10.9.0.100:80
    name: "web"
    scheduler: wrr
    persistence: {timeout: 5m, netmask: 255.255.255.0}
    destinations:
      - {address: "10.9.0.21:80", forward: droute, weight: 1}
      - {address: "10.9.0.22:80", forward: tunnel, weight: 2, tunnel: {type: gue, port: 6080, checksum: csum}}
  - service: tcp://[2001:db8::100]:443
    scheduler: wlc
    destinations:
      - {address: "[2001:db8::21]:8443", forward: masq, weight: 1, upper: 2000, lower: 1500}
  - service: udp://10.9.0.100:53
    scheduler: rr
    flags: [one-packet]
    destinations:
      - {address: "10.9.0.21:53", forward: droute, weight: 1}
  - service: tcp://10.9.0.50:25
    vip: false
    scheduler: lc
    destinations:
      - {address: "10.9.0.21:25", forward: droute, weight: 1}
  - service: fwmark://7
    scheduler: sh
    flags: [sh-fallback, sh-port]
    destinations:
      - {address: "10.9.0.23:0", comment: "weight 0: takes no new connections", forward: droute, weight: 0}
`
	got, err := FormatTable(doc, "yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestFormatTableRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawDocument(t)
		for _, format := range []string{"yaml", "json"} {
			text, err := FormatTable(want, format)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseTable(text, format)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if a, b := mustTable(t, want), mustTable(t, got); !a.Equal(b) {
				t.Fatalf("%s lost something:\n%s", format, text)
			}
		}
	})
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrPort(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(mustAddr(addr), port)
}

func mustTable(t *rapid.T, doc ipvs.Document) ipvs.Table {
	table, err := doc.Table()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// drawDocument draws a valid document that uses every field.
func drawDocument(t *rapid.T) ipvs.Document {
	words := rapid.SampledFrom([]string{"", "web", "a: b", `say "hi" # no`, "äöü €", "007", "null", "- [x", "{", "'", `\n`, "\u00a0\u2028"})
	var doc ipvs.Document
	if rapid.Bool().Draw(t, "sync") {
		text := rapid.SampledFrom([]string{
			`{}`, `{"enabled":false}`, `{"id":255,"group":"224.0.0.81","port":8848,"ttl":3,"maxlen":9188}`, `{"group6":"ff02::81"}`,
		}).Draw(t, "sync")
		if err := json.Unmarshal([]byte(text), &doc.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if rapid.Bool().Draw(t, "timeouts") {
		doc.Timeouts = &ipvs.Timeouts{TCP: 900, TCPFin: 61, UDP: ipvs.MaxConnectionTimeout}
	}
	if rapid.Bool().Draw(t, "vips") {
		text := rapid.SampledFrom([]string{
			`"auto"`, `[]`, `[{"address":"10.9.0.1"}]`, `[{"address":"2001:db8::1/64","network":"007"},{"address":"10.1.0.1/24","network":"null"}]`,
		}).Draw(t, "list")
		if err := json.Unmarshal([]byte(text), &doc.VIPs); err != nil {
			t.Fatal(err)
		}
	}
	keys := []string{"tcp://10.9.0.1:80", "udp://10.9.0.1:53", "sctp://[2001:db8::1]:9", "fwmark://7", "fwmark6://4294967295"}
	for _, k := range keys[:rapid.IntRange(0, len(keys)).Draw(t, "services")] {
		s := ipvs.Service{Name: words.Draw(t, "name"), Comment: words.Draw(t, "comment")}
		var err error
		if s.Key, err = ipvs.ParseServiceKey(k); err != nil {
			t.Fatal(err)
		}
		s.NoVIP = s.Key.FWMark == 0 && ipvs.Negated(rapid.Bool().Draw(t, "no vip"))
		s.Scheduler = rapid.SampledFrom([]string{"", "rr", "sh"}).Draw(t, "scheduler")
		if s.Scheduler == "sh" {
			s.Flags = ipvs.SHFallback | ipvs.SHPort | ipvs.Flag3
		}
		if s.Key.Protocol == ipvs.UDP {
			s.Flags |= ipvs.OnePacket
			s.Persistence = ipvs.Persistence{Timeout: 300, Netmask: mustAddr("255.255.255.0"), Engine: "sip"}
		}
		if s.Key.Family == ipvs.IPv6 {
			s.Persistence = ipvs.Persistence{Timeout: 1, Prefix: 64}
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "destinations") {
			s.Destinations = append(s.Destinations, drawDestination(t, s.Key, i, words))
		}
		doc.Services = append(doc.Services, s)
	}
	return doc
}

func drawDestination(t *rapid.T, key ipvs.ServiceKey, i int, words *rapid.Generator[string]) ipvs.Destination {
	addr := fmt.Sprintf("10.9.1.%d", i+1)
	if key.Family == ipvs.IPv6 {
		addr = fmt.Sprintf("2001:db8::1:%x", i+1)
	}
	d := ipvs.DefaultDestination
	d.Addr = addrPort(addr, key.Port)
	d.Name, d.Comment = words.Draw(t, "name"), words.Draw(t, "comment")
	d.Weight = rapid.Int32Range(0, 1<<31-1).Draw(t, "weight")
	d.Upper = rapid.Int32Range(0, 9).Draw(t, "upper")
	d.Lower = rapid.Int32Range(0, d.Upper).Draw(t, "lower")
	if rapid.Bool().Draw(t, "tunnel") {
		d.Forward = ipvs.Tunnel
		d.Tunnel = rapid.SampledFrom([]ipvs.TunnelOptions{
			{}, {Type: ipvs.GUE, Port: 6080, Checksum: ipvs.RemCsum}, {Type: ipvs.GRE, Checksum: ipvs.Csum},
		}).Draw(t, "options")
	}
	return d
}

func FuzzParseTable(f *testing.F) {
	if example, err := os.ReadFile("table.example.yaml"); err == nil {
		f.Add(string(example))
	}
	f.Add(`{"services":[{"service":"tcp://[::1]:80"}]}`)
	f.Add("services: &a\n  - *a\n")
	f.Add("vips: auto\nservices: []\n")
	f.Add("vips: &a [*a]\nservices: [{service: \"tcp://10.9.0.1:80\", vip: false}]\n")
	f.Add("services: [? a : b]\n? [x]\n: y")
	f.Add("<<: {a: b}\nservices: !!set {a, b}\n")
	f.Add("services:\n  - service: &s tcp://10.9.0.1:80\n    ? *s\n    : *s\n")
	f.Add("services:\n  - {service: \"tcp://10.9.0.1:80\"\n# more\n---\n...\n")
	f.Add("services: [{service: 'tcp://10.9.0.1:80', comment: \"\xe4\x01\"}]\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := ParseTable([]byte(text), "fuzz")
		if err != nil {
			return
		}
		again, err := FormatTable(doc, "yaml")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseTable(again, "again"); err != nil {
			t.Fatalf("%q was read, but its own form %q is not: %v", text, again, err)
		}
	})
}
