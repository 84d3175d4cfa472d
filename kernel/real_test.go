package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/kerneltest"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
)

// realKernel set to "required" makes it a failure, not a skip, when the tests on the
// real kernel cannot run.
const realKernel = "IPVS_HA_REAL_KERNEL"

// enter gives the test a network namespace of its own, with the interfaces that
// kerneltest asks for. It skips the test where there is no IPVS to try.
func enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if _, err := netns.New(); err != nil {
		skip(t, err)
	}
	for _, link := range []struct {
		name string
		up   bool
	}{{kerneltest.InterfaceUp, true}, {kerneltest.InterfaceDown, false}} {
		dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: link.name}}
		if err := netlink.LinkAdd(dummy); err != nil {
			skip(t, err)
		}
		if !link.up {
			continue
		}
		addr, err := netlink.ParseAddr("10.99.0.1/24")
		if err = errors.Join(err, netlink.AddrAdd(dummy, addr), netlink.LinkSetUp(dummy)); err != nil {
			skip(t, err)
		}
	}
}

// skip is for what the machine lacks.
func skip(t *testing.T, err error) {
	t.Helper()
	if os.Getenv(realKernel) == "required" {
		t.Fatalf("%s: no test on the real kernel: %v", realKernel, err)
	}
	t.Skipf("no test on the real kernel: %v", err)
}

// dial opens the IPVS of the test's own namespace.
func dial(t *testing.T) *kernel.Client {
	t.Helper()
	enter(t)
	c, err := kernel.Dial()
	if err != nil {
		skip(t, err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Info(t.Context()); err != nil {
		skip(t, err)
	}
	return c
}

func openFake() *memkernel.Kernel {
	return memkernel.New(memkernel.WithInterfaces(
		memkernel.Interface{Name: kerneltest.InterfaceUp},
		memkernel.Interface{Name: kerneltest.InterfaceDown, Down: true},
	))
}

func TestRealConformance(t *testing.T) {
	kerneltest.Run(t, func(t *testing.T) kerneltest.Kernel { return dial(t) })
}

func TestRealEqualsFake(t *testing.T) {
	for seed := range uint64(5) {
		t.Run("", func(t *testing.T) { kerneltest.Compare(t, dial(t), openFake(), seed) })
	}
}

// TestRealNeedsCapability drops CAP_NET_ADMIN from the test's own thread.
func TestRealNeedsCapability(t *testing.T) {
	c := dial(t)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	must(t, unix.Capget(&header, &caps[0]))
	caps[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	must(t, unix.Capset(&header, &caps[0]))
	_, err := c.Services(t.Context())
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("error %v", err)
	}
	err = c.StartDaemon(t.Context(), ipvs.Daemon{State: ipvs.Backup, Interface: kerneltest.InterfaceUp})
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v", err)
	}
}

// TestRealStaysInItsNamespace uses a client from threads of another namespace, also
// after a request that was given up, when it opens a new socket.
func TestRealStaysInItsNamespace(t *testing.T) {
	c := dial(t)
	s := ipvs.Service{Key: ipvs.ServiceMarked(ipvs.IPv4, 1), Scheduler: "rr"}
	must(t, c.AddService(t.Context(), s))
	elsewhere := make(chan error)
	go func() {
		elsewhere <- func() error { // this goroutine's thread is not the locked one
			if services, err := c.Services(t.Context()); err != nil || len(services) != 1 {
				return fmt.Errorf("%d services, error %w", len(services), err)
			}
			var err error
			for tries := 0; tries < 10_000 && !errors.Is(err, kernel.ErrUnanswered); tries++ { // until the answer comes too late
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Microsecond)
				_, err = c.Services(ctx)
				cancel()
			}
			if !errors.Is(err, kernel.ErrUnanswered) {
				return fmt.Errorf("no request was given up: %w", err)
			}
			if services, err := c.Services(t.Context()); err != nil || len(services) != 1 {
				return fmt.Errorf("over a new socket: %d services, error %w", len(services), err)
			}
			return nil
		}()
	}()
	if err := <-elsewhere; err != nil {
		t.Error(err)
	}
}
