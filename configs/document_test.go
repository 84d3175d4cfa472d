package configs

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// TestLimitsAreDocumented compares the table of limits with the code.
func TestLimitsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "<!-- limits: start -->\n| what | limit |\n|---|---|\n")
	have, _, _ := strings.Cut(rest, "<!-- limits: end -->")
	var want strings.Builder
	for _, l := range []struct {
		what  string
		limit int
		unit  string
	}{
		{"virtual services", ipvs.MaxServices, ""},
		{"destinations of all services", ipvs.MaxDestinations, ""},
		{"destinations of one service", ipvs.MaxServiceDestinations, ""},
		{"virtual addresses in `vips`", ipvs.MaxVIPs, ""},
		{"a name", ipvs.MaxName, " bytes"},
		{"a comment", ipvs.MaxComment, " bytes"},
		{"a network's name", ipvs.MaxNetwork, " characters"},
		{"a table, as a file and as the request", ipvs.MaxDocument >> 20, " MiB"},
		{"changes made at once, as a log entry", ipvs.MaxCommand >> 10, " KiB"},
		{"any other request", ipvs.MaxRequest >> 20, " MiB"},
	} {
		number := strconv.Itoa(l.limit)
		if i := len(number) - 3; i > 0 {
			number = number[:i] + "," + number[i:]
		}
		fmt.Fprintf(&want, "| %s | %s%s |\n", l.what, number, l.unit)
	}
	if diff := cmp.Diff(want.String(), have); diff != "" {
		t.Errorf("docs/configuration.md (-want +got):\n%s", diff)
	}
}
