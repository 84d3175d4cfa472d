package vip

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	for _, all := range [][]Address{nil, addresses(vip4), addresses(vip4, vip6, "10.9.0.100/24@eth1")} {
		want := claims(all)
		if err := writeRecord(dir, want); err != nil {
			t.Fatal(err)
		}
		got, warning, err := readRecord(dir)
		if err != nil || warning != nil || !maps.Equal(got, want) {
			t.Errorf("read %v, warning %v, error %v; want %v", got, warning, err, want)
		}
	}
}

func TestNoRecord(t *testing.T) {
	got, warning, err := readRecord(t.TempDir())
	if len(got) != 0 || warning != nil || err != nil {
		t.Errorf("read %v, warning %v, error %v", got, warning, err)
	}
}

func TestDamagedRecord(t *testing.T) {
	good := string(encodeRecord(claims(addresses(vip4, vip6))))
	for name, text := range map[string]string{
		"empty":     "",
		"cut off":   good[:len(good)-4],
		"one line":  strings.SplitAfter(good, "\n")[0],
		"a changed": strings.Replace(good, "10.9", "10.8", 1),
		"zeros":     string(make([]byte, len(good))),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, recordName)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := New(Config{DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if w := k.Status().Warnings; len(w) != 1 || !strings.Contains(w[0], "damaged") {
				t.Errorf("warnings %v", w)
			}
			if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != text {
				t.Errorf("kept %q, %v", kept, err)
			}
		})
	}
}

func TestNewerRecord(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, recordName), []byte("ipvs-ha vips 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "upgrade it") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(encodeRecord(claims(addresses(vip4, vip6))))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseRecord(data)
		if err != nil {
			return
		}
		again, err := parseRecord(encodeRecord(got))
		if err != nil || !maps.Equal(got, again) {
			t.Errorf("%v became %v: %v", got, again, err)
		}
	})
}
