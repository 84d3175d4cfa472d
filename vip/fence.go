package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// minPermit is the shortest permit. The kernel counts in ticks of up to 10 ms, and
// some kernels take less than one tick for no end at all.
const minPermit = 20 * time.Millisecond

// errLate says that a permit came too late to be given.
var errLate = errors.New("the kernel took too long")

// fence is what keeps packets from VIPs. Each call ends within a few seconds, and
// errors match os.ErrNotExist when the fence is not there or not whole.
type fence interface {
	// Covered returns the addresses that the fence covers.
	Covered() ([]netip.Addr, error)
	// Build makes the fence anew, shut, over exactly these addresses, and without a
	// moment in between.
	Build(addrs []netip.Addr) error
	// Change covers more and fewer addresses.
	Change(cover, uncover []netip.Addr) error
	// Permit lets packets through for d from now, at least minPermit, in place of any
	// permit before. An error that matches errLate says that nothing was let through,
	// because the kernel took too long.
	Permit(d time.Duration) error
	// Shut ends the permit.
	Shut() error
	// Remove takes the fence away. It is no error when there is none.
	Remove() error
	// Check returns nil when the fence is whole.
	Check() error
	// Close closes what the fence has opened; the next call opens it again.
	Close()
}

// noFence is no fence. The addresses are then all that tells an owner from others.
type noFence struct{}

var _, _ fence = (*nft)(nil), noFence{}

// Build removes the fence of a process that had one: it is shut.
func (noFence) Build([]netip.Addr) error {
	var f nft
	defer f.Close()
	if err := f.Remove(); err != nil {
		return fmt.Errorf("there may be a fence, which is off now: %w", err)
	}
	return nil
}

func (noFence) Covered() ([]netip.Addr, error) { return nil, nil }
func (noFence) Change(_, _ []netip.Addr) error { return nil }
func (noFence) Permit(time.Duration) error     { return nil }
func (noFence) Shut() error                    { return nil }
func (noFence) Remove() error                  { return nil }
func (noFence) Check() error                   { return nil }
func (noFence) Close()                         {}
