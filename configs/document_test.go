package configs

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// TestTableDocument finds every key that ParseTable reads in the first column of
// the second part of docs/configuration.md, in full or as ".name".
func TestTableDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(text), "\n## The table\n")
	if !ok {
		t.Fatal("docs/configuration.md has no part about the table")
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\|([^|]+)\|`).FindAllStringSubmatch(part, -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			documented[name[1]] = true
		}
	}
	for prefix, keys := range map[string][]key{
		"sync.":            syncKeys(&ipvs.Sync{}, new(bool)),
		"vips[].":          vipKeys(&ipvs.VIP{}),
		"timeouts.":        timeoutKeys(&ipvs.Timeouts{}),
		"services[].":      serviceKeys(&ipvs.Service{}),
		".destinations[].": destinationKeys(&ipvs.Destination{}),
	} {
		for _, k := range keys {
			if k.name != "destinations" && !documented[prefix+k.name] && !documented["."+k.name] {
				t.Errorf("docs/configuration.md lacks the key %s%s", prefix, k.name)
			}
		}
	}
}
