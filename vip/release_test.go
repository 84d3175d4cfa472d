package vip

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// released makes a host that a killed owner has left, with all in the record.
func released(t *testing.T, all ...Address) (h *fakeHost, dir string) {
	t.Helper()
	h, dir = newHost(), t.TempDir()
	if err := writeRecord(dir, claims(all)); err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		h.addresses[a] = time.Now().Add(addressLife)
	}
	if err := h.Build(nil); err != nil {
		t.Fatal(err)
	}
	h.ops = nil
	return h, dir
}

func TestReleaseRemovesOnlyOurs(t *testing.T) {
	all := addresses(vip4, vip6)
	h, dir := released(t, all...)
	h.byHand(vip6) // recorded, but not added by us: it has no end
	for range 2 {
		if err := release(dir, parts{fence: h, network: h}); err != nil {
			t.Fatal(err)
		}
	}
	if h.has(vip4) || !h.has(vip6) || !h.has("10.9.0.11/24@eth0") {
		t.Errorf("left: %v", h.addresses)
	}
	// The permit goes first and the fence last.
	if diff := cmp.Diff([]string{"shut", "remove " + vip4, "unfence", "shut"}, h.ops); diff != "" {
		t.Errorf("ops (-want +got):\n%s", diff)
	}
}

// TestReleaseThatFails leaves the fence where an address may be left.
func TestReleaseThatFails(t *testing.T) {
	damage := func(_ *fakeHost, dir string) error {
		return os.WriteFile(filepath.Join(dir, recordName), []byte("x"), 0o600)
	}
	for _, tc := range []struct {
		name    string
		prepare func(h *fakeHost, dir string) error
		message string
		fence   bool // is left
	}{
		{"addresses", func(h *fakeHost, _ string) error { h.refuse["remove"] = errRefused; return nil }, "the fence stays: remove " + vip4 + ": refused", true},
		{"no look", func(h *fakeHost, _ string) error { h.refuse["look"] = errRefused; return nil }, "the fence stays: refused", true},
		{"record", damage, "the fence stays: the record of addresses was damaged", true},
		{"permit", func(h *fakeHost, _ string) error { h.refuse["shut"] = errRefused; return nil }, "refused", false},
		{"fence", func(h *fakeHost, _ string) error { h.refuse["unfence"] = errRefused; return nil }, "refused", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, dir := released(t, addresses(vip4)...)
			if err := tc.prepare(h, dir); err != nil {
				t.Fatal(err)
			}
			err := release(dir, parts{fence: h, network: h})
			if err == nil || !strings.Contains(err.Error(), tc.message) {
				t.Errorf("error %v, want %q", err, tc.message)
			}
			if left := h.covered != nil; left != tc.fence || !slices.Contains(h.ops, "shut") {
				t.Errorf("the fence is left: %t; ops %v", left, h.ops)
			}
		})
	}
}

// TestReleaseWithoutNFTables: a kernel without them has no fence.
func TestReleaseWithoutNFTables(t *testing.T) {
	for _, errno := range []error{unix.EPROTONOSUPPORT, errors.Join(unix.EOPNOTSUPP, os.ErrDeadlineExceeded), os.ErrNotExist} {
		h, dir := released(t, addresses(vip4)...)
		h.covered, h.refuse["shut"] = nil, errno
		if err := release(dir, parts{fence: h, network: h}); err != nil || h.has(vip4) {
			t.Errorf("%v: error %v; left: %v", errno, err, h.addresses)
		}
	}
}

// TestReleaseWithoutPrivileges, as a witness has none: it has nothing to release, unless
// it was a director before.
func TestReleaseWithoutPrivileges(t *testing.T) {
	h, dir := newHost(), t.TempDir()
	h.covered = map[netip.Addr]bool{}
	h.refuse["shut"], h.refuse["unfence"] = os.NewSyscallError("send", unix.EPERM), unix.EPERM
	p := parts{fence: h, network: h}
	if err := release(dir, p); err != nil {
		t.Error(err)
	}
	if err := writeRecord(dir, claims(addresses(vip4))); err != nil {
		t.Fatal(err)
	}
	if err := release(dir, p); !errors.Is(err, unix.EPERM) {
		t.Errorf("with addresses in the record: %v", err)
	}
}
