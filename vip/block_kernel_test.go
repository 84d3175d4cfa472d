package vip

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

// block keeps the director's nftables busy for a second or more with a transaction of
// somebody else's: all others wait in the kernel. It returns what waits for its end.
func (b *bench) block() (unblocked func()) {
	b.t.Helper()
	var transaction strings.Builder
	transaction.WriteString("add table ip filler\nadd set ip filler s { type ipv4_addr . inet_service; flags interval; }\nadd element ip filler s {\n")
	for i := range 4000 { // it is slow at sorting ranges in
		fmt.Fprintf(&transaction, "10.%d.%d.%d/31 . %d-%d,\n", i>>15, i>>7&255, i&127*2, i, i+1)
	}
	transaction.WriteString("}\ndelete table ip filler\n")
	cmd := exec.Command("ip", "netns", "exec", b.director, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(transaction.String())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		b.t.Helper()
		if err := cmd.Wait(); err != nil {
			b.t.Fatalf("nft: %v\n%s", err, &out)
		}
	}
}

// flood sends packets to v as fast as it can until it is stopped, and returns when
// each that was accepted came.
func (b *bench) flood(v Address) (stop func() []time.Duration) {
	b.t.Helper()
	stopped := make(chan struct{})
	sent, accepted := make(chan struct{}), make(chan []time.Duration)
	go func() {
		defer close(sent)
		for i := uint16(0); ; i++ {
			select {
			case <-stopped:
				return
			default:
				b.send(v.Addr(), i)
			}
		}
	}()
	if err := b.socket.SetReadDeadline(time.Time{}); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		var at []time.Duration
		for buffer := make([]byte, 64); ; {
			if _, err := b.socket.Read(buffer); err != nil {
				accepted <- at
				return
			}
			at = append(at, boottime.Now())
		}
	}()
	return func() []time.Duration {
		b.t.Helper()
		close(stopped)
		<-sent
		if err := b.socket.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			b.t.Fatal(err)
		}
		return <-accepted
	}
}

// TestKernelLatePermit has a permit wait in the kernel for longer than it lasts.
func TestKernelLatePermit(t *testing.T) {
	const lasts, kernelTick = 300 * time.Millisecond, 10 * time.Millisecond
	b := shutBench(t)
	stop := b.flood(address(vip4))
	unblocked := b.block()
	var end time.Duration // of the permit that had to wait
	b.inside(b.director, func() error {
		for {
			began := boottime.Now()
			var f nft
			err := f.Permit(lasts)
			if boottime.Now() > began+lasts {
				end = began + lasts
				for f.Shut() != nil { // as a keeper does
				}
				return nil
			}
			if err != nil && !errors.Is(err, errLate) {
				return err
			}
		}
	})
	unblocked()
	accepted := stop()
	if len(accepted) == 0 {
		t.Error("no packet was ever accepted")
	}
	for _, at := range accepted {
		if at > end+kernelTick+maxLate {
			t.Fatalf("a packet is accepted %v after the end of a permit", at-end)
		}
	}
}

// TestKernelLateRenewal renews a permit that has ended, as a renewal does that waited
// in the kernel.
func TestKernelLateRenewal(t *testing.T) {
	b := shutBench(t)
	var f nft
	permit := func(d time.Duration) (err error) {
		b.inside(b.director, func() error { err = f.Permit(d); return nil })
		return err
	}
	if err := permit(time.Minute); err != nil {
		t.Fatal(err)
	}
	b.awaitAccepted(netip.MustParseAddr("10.9.0.100"))
	if err := permit(minPermit); err != nil {
		t.Fatal(err)
	}
	b.await("end of the permit", func() error {
		if b.acceptsWithin(netip.MustParseAddr("10.9.0.100"), 50*time.Millisecond) {
			return errors.New("packets pass")
		}
		return nil
	})
	if err := permit(time.Minute); !errors.Is(err, errLate) {
		t.Errorf("renew a permit that has ended: %v, want %v", err, errLate)
	}
	if b.accepts(netip.MustParseAddr("10.9.0.100")) {
		t.Error("a packet is accepted")
	}
}

// shutBench is a director with an address behind a fence that nobody opens.
func shutBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.keep(Config{Fence: true})
	b.standby(address(vip4))
	b.stop()
	b.in(b.director, "ip addr add 10.9.0.100/32 dev eth0")
	return b
}
