// Package ipvsha_test checks what ARCHITECTURE.md says about the whole module.
package ipvsha_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ipvs-ha/ipvs-ha/"

// levels reads the package list of ARCHITECTURE.md.
func levels(t *testing.T) map[string]int {
	t.Helper()
	f, err := os.Open("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	level := map[string]int{}
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		rest, ok := strings.CutPrefix(scanner.Text(), "level ")
		if !ok {
			continue
		}
		number, packages, _ := strings.Cut(rest, ":")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("ARCHITECTURE.md: %q: %v", scanner.Text(), err)
		}
		for _, p := range strings.Fields(packages) {
			level[p] = n
		}
	}
	return level
}

type listedPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImportsPointDown(t *testing.T) {
	level := levels(t)
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok || strings.HasPrefix(name, "e2e") {
			continue
		}
		if level[name] == 0 {
			t.Errorf("ARCHITECTURE.md gives %s no level", name)
			continue
		}
		for _, i := range p.Imports {
			if own, ok := strings.CutPrefix(i, module); ok && level[own] >= level[name] {
				t.Errorf("%s (level %d) imports %s (level %d)", name, level[name], own, level[own])
			}
		}
		checkDeps(t, name, p.Deps)
	}
}

// persistent is what ipvs.Table is made of.
var persistent = []string{"github.com/hashicorp/go-immutable-radix/v2", "github.com/hashicorp/golang-lru/v2/simplelru"}

// checkDeps holds the promises that a level cannot express: ipvs needs next to
// nothing, and people can import kernel without raft.
func checkDeps(t *testing.T, name string, deps []string) {
	t.Helper()
	for _, d := range deps {
		if slices.Contains(persistent, d) {
			continue
		}
		if name == "ipvs" && strings.Contains(d, ".") && !strings.HasPrefix(d, "vendor/") {
			t.Errorf("ipvs depends on %s; it may use the standard library and its tree only", d)
		}
		if name == "kernel" && strings.Contains(d, "hashicorp") {
			t.Errorf("kernel depends on %s", d)
		}
	}
}
