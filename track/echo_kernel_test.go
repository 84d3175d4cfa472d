package track

import (
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestEcho asks a real kernel, this host's own.
func TestEcho(t *testing.T) {
	if os.Getenv("IPVS_HA_REAL_KERNEL") == "" {
		t.Skip("needs a real kernel: IPVS_HA_REAL_KERNEL is not set")
	}
	for _, address := range []string{"127.0.0.1", "::1"} {
		a, err := dialEcho(netip.MustParseAddr(address))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := a.Ask(time.Now().Add(10 * time.Second)); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}
