package timing

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestProfilesPass(t *testing.T) {
	for _, name := range []string{"fast", "lan", "wan", ""} {
		p, err := ByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(); err != nil {
			t.Errorf("profile %q: %v", name, err)
		}
	}
	if _, err := ByName("slow"); err == nil {
		t.Error("a profile that does not exist")
	}
}

// TestLimitsKeepTheLeaseUseful: what is taken off a lease is a small part of it, and a
// leader asks so often that one lost request costs nothing.
func TestLimitsKeepTheLeaseUseful(t *testing.T) {
	for _, lease := range []time.Duration{MinLease, MaxLease} {
		if off := FenceLateness + lease/Drift; off >= lease/5 {
			t.Errorf("of a lease of %s, %s are taken off", lease, off)
		}
		if interval := lease / Requests; interval > lease/4 {
			t.Errorf("a lease of %s is asked for every %s", lease, interval)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name string
		with Profile
		want string // of the error, by key; "" = passes
	}{
		{"a longer one", Profile{Lease: 500 * ms, Heartbeat: 1200 * ms, Election: 1200 * ms, LeaderLease: 500 * ms, Transport: 1200 * ms}, ""},
		{"the shortest", Profile{Lease: MinLease, Heartbeat: 150 * ms, LeaderLease: 65 * ms}, ""},
		{"heartbeat", Profile{Heartbeat: 500 * ms}, "timing heartbeat: 500ms: must be at least 2.3 times lease, 300ms, that is 690ms"},
		{"lease too long for the rest", Profile{Lease: 400 * ms}, "timing heartbeat: 700ms: must be at least 2.3 times lease, 400ms, that is 920ms"},
		{"lease too short", Profile{Lease: MinLease - 1}, "timing lease: 64.999999ms: must be from 65ms to 10s"},
		{"lease too long", Profile{Lease: MaxLease + 1}, "timing lease: 10.000000001s: must be from 65ms to 10s"},
		{"election", Profile{Election: 699 * ms}, "timing election: 699ms: must be at least heartbeat, 700ms"},
		{"leader_lease above heartbeat", Profile{LeaderLease: 701 * ms}, "timing leader_lease: 701ms: must be at most heartbeat, 700ms"},
		{"leader_lease long", Profile{LeaderLease: 451 * ms}, "timing leader_lease: 451ms: must be at most 1.5 times lease, 300ms, that is 450ms"},
		{"leader_lease short", Profile{LeaderLease: 279 * ms}, "timing leader_lease: 279ms: must be at least 2/5 of heartbeat, 700ms, that is 280ms"},
		{"transport", Profile{Transport: 300 * ms}, "timing transport: 300ms: must be above lease, 300ms"},
		{"stagger", Profile{Stagger: 301 * ms}, "timing stagger: 301ms: must be above 0 and at most lease, 300ms"},
		{"commit", Profile{Commit: 701 * ms}, "timing commit: 701ms: must be from 1ms to heartbeat, 700ms"},
	}
	lan, _ := ByName("lan")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := lan.With(tt.with).Check()
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var broken *Error
			if err == nil || !errors.As(err, &broken) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
		})
	}
	if err := (Profile{Heartbeat: 200 * ms, Election: 200 * ms, LeaderLease: 150 * ms, Commit: 5 * ms}).Check(); err != nil {
		t.Errorf("without leases: %v", err)
	}
}

func TestDiffers(t *testing.T) {
	lan, _ := ByName("lan")
	if text := lan.Differs(lan); text != "" {
		t.Errorf("from itself: %s", text)
	}
	if text, want := lan.Differs(lan.With(Profile{Lease: 100 * ms, Commit: ms})), "lease 100ms, not 300ms, commit 1ms, not 30ms"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
}
