package kernel

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

var byAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

// captured calls fn with each message of the file.
func captured(t testing.TB, fn func(kind string, payload []byte)) {
	t.Helper()
	f, err := os.Open("testdata/linux-6.1-amd64.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		kind, text, _ := strings.Cut(lines.Text(), " ")
		if kind == "#" {
			continue
		}
		payload, err := hex.DecodeString(text)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		fn(kind, payload)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// decode decodes a message of the given kind.
func decode(kind string, payload []byte) (any, error) {
	switch kind {
	case "service":
		return decodeService(payload)
	case "destination":
		return decodeDestination(ipvs.IPv4, payload)
	case "destination6":
		return decodeDestination(ipvs.IPv6, payload)
	case "daemon":
		return decodeDaemon(payload)
	case "timeouts":
		return decodeTimeouts(payload)
	case "info":
		return decodeInfo(payload)
	}
	panic(kind)
}

var kinds = []string{"service", "destination", "destination6", "daemon", "timeouts", "info"}

func TestDecodeCaptured(t *testing.T) {
	addr := netip.MustParseAddrPort
	want := []any{
		ipvs.Daemon{State: ipvs.Master, Interface: "lo", SyncID: 7, MaxLen: 1400, Group: netip.MustParseAddr("224.0.0.81"), Port: 9000, TTL: 1},
		ipvs.Daemon{State: ipvs.Backup, Interface: "lo", SyncID: 8, MaxLen: 65487, Group: netip.MustParseAddr("ff02::81"), Port: 8848, TTL: 1},
		ipvs.ServiceEntry{Service: ipvs.Service{
			Key: ipvs.ServiceAt(ipvs.TCP, addr("10.9.0.100:80")), Scheduler: "sh", Flags: ipvs.SHPort,
			Persistence: ipvs.Persistence{Timeout: 300, Netmask: netip.MustParseAddr("255.255.255.0")},
		}},
		ipvs.ServiceEntry{Service: ipvs.Service{
			Key: ipvs.ServiceAt(ipvs.UDP, addr("[2001:db8::100]:5060")), Scheduler: "wrr", Flags: ipvs.OnePacket,
			Persistence: ipvs.Persistence{Timeout: 60, Prefix: 64, Engine: "sip"},
		}},
		ipvs.ServiceEntry{Service: ipvs.Service{Key: ipvs.ServiceMarked(ipvs.IPv6, 7), Scheduler: "rr"}},
		ipvs.DestinationEntry{Destination: ipvs.Destination{
			Addr: addr("[2001:db8::21]:80"), Forward: ipvs.Tunnel, Weight: 1,
			Tunnel: ipvs.TunnelOptions{Type: ipvs.GUE, Port: 6080, Checksum: ipvs.RemCsum},
		}},
		ipvs.DestinationEntry{Destination: ipvs.Destination{Addr: addr("10.9.0.21:80"), Forward: ipvs.DRoute, Weight: 3, Upper: 100, Lower: 10}},
		ipvs.DestinationEntry{Destination: ipvs.Destination{Addr: addr("[2001:db8::21]:5061"), Forward: ipvs.Masq}},
		ipvs.Timeouts{TCP: 900, TCPFin: 120, UDP: 300},
		ipvs.Info{Version: 0x010201, ConnTableSize: 4096},
	}
	var got []any
	captured(t, func(kind string, payload []byte) {
		v, err := decode(kind, payload)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		got = append(got, v)
	})
	if diff := cmp.Diff(want, got, byAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestDecodeCut cuts captured messages at every byte: an error or a value, never a
// panic, and always an error when the outer attribute is cut.
func TestDecodeCut(t *testing.T) {
	captured(t, func(kind string, payload []byte) {
		for n := range payload {
			_, err := decode(kind, payload[:n])
			if err == nil && n%4 != 0 {
				t.Errorf("%s: %d of %d bytes were accepted", kind, n, len(payload))
			}
		}
	})
}

// counters returns statistics with attribute i at base+i, size bytes wide.
func counters(typ uint16, base uint64, size int) []byte {
	return appendNest(nil, typ, func(b []byte) []byte {
		for i := uint16(statsConns); i <= statsOutBPS; i++ {
			v := binary.NativeEndian.AppendUint64(nil, base+uint64(i))
			if size == 4 {
				v = binary.NativeEndian.AppendUint32(nil, uint32(base)+uint32(i))
			}
			b = appendAttr(b, i, v...)
		}
		return appendAttr(b, 11) // padding
	})
}

func TestDecodeCounters(t *testing.T) {
	const wide = 1 << 40
	at := func(base uint64) ipvs.Stats {
		return ipvs.Stats{
			Connections: base + 1, InPackets: base + 2, OutPackets: base + 3, InBytes: base + 4, OutBytes: base + 5,
			Rates: ipvs.Rates{Connections: base + 6, InPackets: base + 7, OutPackets: base + 8, InBytes: base + 9, OutBytes: base + 10},
		}
	}
	narrow, stats64 := counters(destStats, 100, 4), counters(destStats64, wide, 8)
	tests := map[string]struct {
		stats []byte
		want  ipvs.Stats
	}{
		"old kernel":   {narrow, at(100)},
		"narrow, wide": {append(narrow[:len(narrow):len(narrow)], stats64...), at(wide)},
		"wide, narrow": {append(stats64[:len(stats64):len(stats64)], narrow...), at(wide)},
		"none":         {nil, ipvs.Stats{}},
	}
	for name, test := range tests {
		payload := appendNest(nil, attrDest, func(b []byte) []byte {
			b = appendAddress(b, netip.MustParseAddrPort("10.9.0.21:80"))
			b = appendUint32(b, destActiveConns, 1)
			b = appendUint32(b, destInactConns, 2)
			b = appendUint32(b, destPersistConns, 3)
			return append(b, test.stats...)
		})
		got, err := decodeDestination(ipvs.IPv4, payload)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got.Stats != test.want || got.ActiveConnections != 1 || got.InactiveConnections != 2 || got.PersistentConnections != 3 {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

func TestDecodeOdd(t *testing.T) {
	service := func(fill func(b []byte) []byte) []byte { return appendNest(nil, attrService, fill) }
	key := func(b []byte) []byte {
		return appendKey(b, ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("10.9.0.100:80")))
	}
	flags := func(b []byte) []byte { return appendAttr(b, svcFlags, make([]byte, 8)...) }
	tests := []struct {
		name    string
		kind    string
		payload []byte
		ok      bool
	}{
		{"nothing", "service", nil, false},
		{"another nest", "service", appendNest(nil, attrDest, key), false},
		{"no address", "service", service(func(b []byte) []byte { return appendUint16(b, svcAF, 2) }), false},
		{"no family", "service", service(func(b []byte) []byte { return appendUint32(b, svcFWMark, 1) }), false},
		{"family 3", "service", service(func(b []byte) []byte { return appendUint32(appendUint16(b, svcAF, 3), svcFWMark, 1) }), false},
		{"IPv6 in 4 bytes", "service", service(func(b []byte) []byte { return appendAttr(appendUint16(b, svcAF, 10), svcAddr, 1, 2, 3, 4) }), false},
		{"key only", "service", service(key), true},
		{"unknown attribute", "service", service(func(b []byte) []byte { return appendAttr(key(b), 99, 1, 2, 3) }), true},
		{"short flags", "service", service(func(b []byte) []byte { return appendAttr(key(b), svcFlags, 1) }), false},
		{"short port", "service", service(func(b []byte) []byte { return appendAttr(key(b), svcPort, 1) }), false},
		{"long port", "service", service(func(b []byte) []byte { return appendUint32(key(b), svcPort, 1) }), false},
		{"no NUL", "service", service(func(b []byte) []byte { return appendAttr(key(b), svcSchedName, 'r', 'r') }), false},
		{"persistent without mask", "service", service(func(b []byte) []byte { return appendAttr(key(b), svcFlags, 1, 1, 1, 1, 1, 1, 1, 1) }), false},
		{"flags", "service", service(func(b []byte) []byte { return flags(key(b)) }), true},
		{"odd counter", "service", service(func(b []byte) []byte {
			return appendNest(key(b), svcStats64, func(b []byte) []byte { return appendAttr(b, statsConns, 1) })
		}), false},
		{"counter in pieces", "service", service(func(b []byte) []byte { return appendAttr(key(b), svcStats, 1, 2, 3) }), false},
		{"no destination", "destination", appendNest(nil, attrService, key), false},
		{"destination without family", "destination", appendNest(nil, attrDest, func(b []byte) []byte {
			return appendAttr(b, destAddr, 10, 9, 0, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}), true},
		{"no daemon", "daemon", nil, false},
		{"short group", "daemon", appendNest(nil, attrDaemon, func(b []byte) []byte { return appendAttr(b, daemonMcastGroup, 224) }), false},
		{"short timeout", "timeouts", appendAttr(nil, attrTimeoutUDP, 1, 2), false},
		{"length 3", "info", []byte{3, 0, 1, 0}, false},
		{"length 0", "info", []byte{0, 0, 0, 0}, false},
		{"length beyond", "info", []byte{0xff, 0xff, 1, 0}, false},
	}
	for _, test := range tests {
		if _, err := decode(test.kind, test.payload); (err == nil) != test.ok {
			t.Errorf("%s: error %v", test.name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	captured(f, func(_ string, payload []byte) { f.Add(payload) })
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, kind := range kinds {
			if _, err := decode(kind, payload); err != nil {
				continue
			}
		}
		entry, err := decodeService(payload)
		if err != nil {
			return
		}
		r := Request{Op: OpSetService, Key: entry.Key, Service: &entry.Service}
		if r.Check() != nil {
			return
		}
		again, err := decodeService(appendAttributes(nil, r))
		if diff := cmp.Diff(entry.Service, again.Service, byAddr); err != nil || diff != "" {
			t.Errorf("written and read again: %v (-want +got):\n%s", err, diff)
		}
	})
}

// TestEncode reads requests with another reader of attributes than this package's.
func TestEncode(t *testing.T) {
	key4 := ipvs.ServiceAt(ipvs.SCTP, netip.MustParseAddrPort("10.9.0.100:258"))
	key6 := ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("[2001:db8::100]:80"))
	host16 := func(v uint16) string { return hex.EncodeToString(binary.NativeEndian.AppendUint16(nil, v)) }
	host32 := func(v uint32) string { return hex.EncodeToString(binary.NativeEndian.AppendUint32(nil, v)) }
	addr4, addr6 := "0a090064"+strings.Repeat("0", 24), "20010db8000000000000000000000100"
	all := host32(0xffffffff)
	wire4 := map[uint16]string{svcAF: host16(2), svcProtocol: host16(132), svcAddr: addr4, svcPort: "0102"}
	with := func(base map[uint16]string, more map[uint16]string) map[uint16]string {
		both := map[uint16]string{}
		for _, m := range []map[uint16]string{base, more} {
			for k, v := range m {
				both[k] = v
			}
		}
		return both
	}
	type nests map[uint16]map[uint16]string
	tests := []struct {
		name string
		r    Request
		cmd  uint8
		want nests
	}{
		{"plain service", Request{Op: OpAddService, Key: key4, Service: &ipvs.Service{Key: key4, Scheduler: "rr"}}, cmdNewService, nests{
			attrService: with(wire4, map[uint16]string{svcSchedName: "727200", svcFlags: host32(0) + all, svcTimeout: host32(0), svcNetmask: "ffffffff"}),
		}},
		{"service", Request{Op: OpSetService, Key: key4, Service: &ipvs.Service{
			Key: key4, Scheduler: "mh", Flags: ipvs.MHPort | ipvs.OnePacket | ipvs.Flag3,
			Persistence: ipvs.Persistence{Timeout: 300, Netmask: netip.MustParseAddr("255.255.255.0"), Engine: "sip"},
		}}, cmdSetService, nests{
			attrService: with(wire4, map[uint16]string{
				svcSchedName: "6d6800", svcFlags: host32(0x35) + all, svcTimeout: host32(300), svcNetmask: "ffffff00", svcPEName: "73697000",
			}),
		}},
		{"IPv6 service", Request{Op: OpAddService, Key: key6, Service: &ipvs.Service{
			Key: key6, Scheduler: "sh", Flags: ipvs.SHFallback, Persistence: ipvs.Persistence{Timeout: 1, Prefix: 64},
		}}, cmdNewService, nests{
			attrService: {
				svcAF: host16(10), svcProtocol: host16(6), svcAddr: addr6, svcPort: "0050",
				svcSchedName: "736800", svcFlags: host32(9) + all, svcTimeout: host32(1), svcNetmask: host32(64),
			},
		}},
		{"IPv6 mark", Request{Op: OpAddService, Key: ipvs.ServiceMarked(ipvs.IPv6, 7), Service: &ipvs.Service{
			Key: ipvs.ServiceMarked(ipvs.IPv6, 7), Scheduler: "rr",
		}}, cmdNewService, nests{
			attrService: {
				svcAF: host16(10), svcFWMark: host32(7), svcSchedName: "727200",
				svcFlags: host32(0) + all, svcTimeout: host32(0), svcNetmask: host32(128),
			},
		}},
		{"delete service", Request{Op: OpDeleteService, Key: key4}, cmdDelService, nests{attrService: wire4}},
		{"destination", Request{Op: OpSetDestination, Key: key4, Destination: &ipvs.Destination{
			Addr: netip.MustParseAddrPort("[2001:db8::100]:80"), Forward: ipvs.Tunnel, Weight: 3, Upper: 9, Lower: 1,
			Tunnel: ipvs.TunnelOptions{Type: ipvs.GUE, Port: 258, Checksum: ipvs.RemCsum},
		}}, cmdSetDest, nests{
			attrService: wire4,
			attrDest: {
				destAddr: addr6, destPort: "0050", destAddrFamily: host16(10), destFwdMethod: host32(2), destWeight: host32(3),
				destUThresh: host32(9), destLThresh: host32(1), destTunType: "01", destTunPort: "0102", destTunFlags: host16(2),
			},
		}},
		{"plain destination", Request{Op: OpAddDestination, Key: key4, Destination: &ipvs.Destination{
			Addr: netip.MustParseAddrPort("10.9.0.100:80"), Forward: ipvs.DRoute, Weight: 1,
		}}, cmdNewDest, nests{
			attrService: wire4,
			attrDest: {
				destAddr: addr4, destPort: "0050", destAddrFamily: host16(2), destFwdMethod: host32(3), destWeight: host32(1),
				destUThresh: host32(0), destLThresh: host32(0),
			},
		}},
		{"delete destination", Request{Op: OpDeleteDestination, Key: key4, Address: netip.MustParseAddrPort("10.9.0.100:80")}, cmdDelDest, nests{
			attrService: wire4, attrDest: {destAddr: addr4, destPort: "0050", destAddrFamily: host16(2)},
		}},
		{"daemon", Request{Op: OpStartDaemon, Daemon: ipvs.Daemon{
			State: ipvs.Master, Interface: "lo", SyncID: 7, MaxLen: 1400, Group: netip.MustParseAddr("224.1.2.3"), Port: 258, TTL: 3,
		}}, cmdNewDaemon, nests{
			attrDaemon: {
				daemonState: host32(1), daemonMcastIfn: "6c6f00", daemonSyncID: host32(7), daemonSyncMaxLen: host16(1400),
				daemonMcastGroup: "e0010203", daemonMcastPort: host16(258), daemonMcastTTL: "03",
			},
		}},
		{"plain daemon", Request{Op: OpStartDaemon, Daemon: ipvs.Daemon{State: ipvs.Backup, Interface: "lo"}}, cmdNewDaemon, nests{
			attrDaemon: {daemonState: host32(2), daemonMcastIfn: "6c6f00", daemonSyncID: host32(0)},
		}},
		{"stop", Request{Op: OpStopDaemon, Daemon: ipvs.Daemon{State: ipvs.Backup}}, cmdDelDaemon, nests{attrDaemon: {daemonState: host32(2)}}},
		{"zero all", Request{Op: OpZero}, cmdZero, nests{}},
		{"zero one", Request{Op: OpZero, Key: key4}, cmdZero, nests{attrService: wire4}},
	}
	for _, test := range tests {
		var m netlink.Message
		if err := m.UnmarshalBinary(appendRequest(nil, test.r)); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if cmd := m.Data[0]; cmd != test.cmd || m.Header.Flags != netlink.Request|netlink.Acknowledge {
			t.Errorf("%s: command %d with flags %s, want %d", test.name, cmd, m.Header.Flags, test.cmd)
		}
		got := nests{}
		ad, err := netlink.NewAttributeDecoder(m.Data[genericHeader:])
		if err != nil {
			t.Fatal(err)
		}
		for ad.Next() {
			inner := map[uint16]string{}
			got[ad.Type()] = inner
			ad.Nested(func(nad *netlink.AttributeDecoder) error {
				for nad.Next() {
					inner[nad.Type()] = hex.EncodeToString(nad.Bytes())
				}
				return nil
			})
		}
		if err := ad.Err(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestOpErrorText(t *testing.T) {
	r := Request{Op: OpDeleteService, Key: ipvs.ServiceMarked(ipvs.IPv4, 7)}
	err := opError(r, &netlink.OpError{Op: "receive", Err: errors.New("own")})
	if got, want := err.Error(), "delete-service fwmark://7: netlink receive: own"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}
