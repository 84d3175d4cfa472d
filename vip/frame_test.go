package vip

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
)

func TestFrames(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	for _, tc := range []struct {
		address string
		router  bool
		frame   string
		to      string
	}{
		{
			"10.9.0.100", false, "ffffffffffff0200000000070806" + "0001080006040001" + "020000000007" + "0a090064" + "000000000000" + "0a090064",
			"ff:ff:ff:ff:ff:ff",
		},
		{
			"2001:db8::100", true, "33330000000102000000000786dd" + "60000000" + "0020" + "3aff" +
				"20010db8000000000000000000000100" + "ff020000000000000000000000000001" +
				"88007726a0000000" + "20010db8000000000000000000000100" + "0201020000000007",
			"33:33:00:00:00:01",
		},
	} {
		a := netip.MustParseAddr(tc.address)
		frame, to := announcement(a, mac, tc.router)
		if got := hex.EncodeToString(frame); got != tc.frame || to.String() != tc.to {
			t.Errorf("%s: to %s\n%s, want\n%s", a, to, got, tc.frame)
		}
		who, where, ok := spokenFor(frame)
		if who != a || !bytes.Equal(where, mac) || !ok {
			t.Errorf("%s is read as %s at %s, %v", a, who, where, ok)
		}
		for n := range frame { // no length is out of range
			if _, _, ok := spokenFor(frame[:n]); ok && a.Is4() {
				t.Errorf("%s: %d of %d bytes are enough", a, n, len(frame))
			}
		}
	}
	if a, _, ok := spokenFor(make([]byte, 200)); ok {
		t.Errorf("zeros speak for %s", a)
	}
}

func FuzzSpokenFor(f *testing.F) {
	for _, a := range []string{"10.9.0.100", "2001:db8::100"} {
		frame, _ := announcement(netip.MustParseAddr(a), net.HardwareAddr{2, 0, 0, 0, 0, 7}, true)
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if a, mac, ok := spokenFor(frame); ok && (!a.IsValid() || len(mac) != 6) {
			t.Errorf("%v at %v", a, mac)
		}
	})
}
