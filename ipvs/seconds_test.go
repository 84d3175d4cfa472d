package ipvs_test

import (
	"strings"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func TestSeconds(t *testing.T) {
	for text, want := range map[string]string{
		"300": "5m", "5m": "5m", "90s": "90s", "1h30m": "90m", "2h": "2h", "0": "0s", "0s": "0s", "744h": "744h",
	} {
		got, err := ipvs.ParseSeconds(text)
		if err != nil || got.String() != want {
			t.Errorf("ParseSeconds(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		"-5m": "negative", "1.5s": "whole number", "soon": "number with a unit", "": "number with a unit", "99999999h": "", "31d": "like 300s, 15m or 1h", "4294967296": "is longer than 744h",
	} {
		if got, err := ipvs.ParseSeconds(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("ParseSeconds(%q) = %s, %v; want an error that says %q", text, got, err, says)
		}
	}
}

func TestServiceKeyText(t *testing.T) {
	for _, text := range []string{"tcp://10.9.0.1:80", "udp://[2001:db8::1]:53", "sctp://10.9.0.1:0", "fwmark://7", "fwmark6://4294967295", "protocol-1://10.9.0.1:8"} {
		key, err := ipvs.ParseServiceKey(text)
		if err != nil || key.String() != text {
			t.Errorf("ParseServiceKey(%q) = %s, %v", text, key, err)
		}
	}
	for _, text := range []string{"", "10.9.0.1:80", "http://10.9.0.1:80", "protocol-65536://10.9.0.1:80", "tcp://10.9.0.1", "tcp://localhost:80", "tcp://10.9.0.1:65536", "fwmark://-1", "fwmark://4294967296"} {
		if key, err := ipvs.ParseServiceKey(text); err == nil {
			t.Errorf("ParseServiceKey(%q) = %s, want an error", text, key)
		}
	}
}
