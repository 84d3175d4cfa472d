package boottime

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestNowIsTheUptime(t *testing.T) {
	before := Now()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	after := Now()
	seconds, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	const rounding = 20 * time.Millisecond
	uptime := time.Duration(seconds * float64(time.Second))
	if uptime < before-rounding || uptime > after+rounding {
		t.Errorf("uptime %v, want one between %v and %v", uptime, before, after)
	}
	if after < before {
		t.Errorf("time went from %v back to %v", before, after)
	}
}
