package kernel

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/mdlayher/netlink"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// deletions returns n changes, each of another destination.
func deletions(n int) []ipvs.Change {
	changes := make([]ipvs.Change, n)
	for i := range changes {
		addr := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		changes[i] = ipvs.Change{Op: ipvs.DeleteDestination, Key: ipvs.ServiceMarked(ipvs.IPv4, 1), Address: netip.AddrPortFrom(addr, 80)}
	}
	return changes
}

func TestApplyFindsEachRefusal(t *testing.T) {
	bad := map[int]syscall.Errno{
		0: syscall.EEXIST, 1: syscall.ESRCH, 198: syscall.EINVAL, 199: syscall.ENOENT, 200: syscall.ERANGE, 777: syscall.EEXIST, 999: syscall.EPERM,
	}
	k := &fakeKernel{family: 32}
	k.answer = func(uint8) ([][]byte, error) {
		if errno, ok := bad[len(k.seen)-1]; ok {
			return nil, errno
		}
		return done, nil
	}
	changes := deletions(1000)
	errs := k.client().Apply(t.Context(), changes)
	if len(errs) != len(changes) {
		t.Fatalf("%d errors for %d changes", len(errs), len(changes))
	}
	for i, err := range errs {
		errno, planted := bad[i]
		if planted != (err != nil) || planted && !errors.Is(err, errno) {
			t.Errorf("change %d: error %v, want %v", i, err, errno)
		}
		var op *OpError
		if planted && (!errors.As(err, &op) || op.Object != changes[i].Key.String()+" "+changes[i].Address.String()) {
			t.Errorf("change %d: the error names %q", i, op.Object)
		}
	}
	if k.sends != 5 {
		t.Errorf("%d system calls, want 5", k.sends)
	}
}

// TestApplyCancelled ends the context while the kernel works on the second of three
// batches, and does not answer any more.
func TestApplyCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	k := &fakeKernel{family: 32}
	k.answer = func(uint8) ([][]byte, error) {
		switch n := len(k.seen); {
		case n == 250:
			return nil, syscall.ESRCH
		case n > 250:
			cancel()
			return nil, nil
		}
		return done, nil
	}
	for i, err := range k.client().Apply(ctx, deletions(600)) {
		switch {
		case i == 249:
			want(t, err, ErrNoService)
		case i < 250:
			want(t, err, nil)
		case i < 400:
			want(t, err, ErrUnanswered, context.Canceled)
		default:
			want(t, err, context.Canceled)
			if errors.Is(err, ErrUnanswered) {
				t.Errorf("change %d: error %v, but it was not sent", i, err)
			}
		}
	}
	if len(k.seen) != 400 {
		t.Errorf("%d requests, want 400", len(k.seen))
	}
}

func TestApplyAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{family: 32}
		k.answer = func(uint8) ([][]byte, error) {
			if len(k.seen) == 200 {
				return nil, nil
			}
			return done, nil
		}
		for i, err := range k.client().Apply(t.Context(), deletions(300)) {
			if i < 200 {
				want(t, err, ErrUnanswered, os.ErrDeadlineExceeded)
			} else {
				want(t, err, nil)
			}
		}
		if k.opened != 2 {
			t.Errorf("%d sockets, want a new one after the silence", k.opened)
		}
	})
}

func TestApplyWithLostAnswers(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(nil, syscall.ESRCH), room: 50}
	for i, err := range k.client().Apply(t.Context(), deletions(40)) {
		if !errors.Is(err, ErrNoService) {
			t.Errorf("change %d: error %v", i, err)
		}
	}
	for i, err := range k.client().Apply(t.Context(), deletions(60)) {
		if !errors.Is(err, ErrUnanswered) || !errors.Is(err, syscall.ENOBUFS) {
			t.Errorf("change %d: error %v", i, err)
		}
	}
}

// TestApplyLosesNoChange has trouble with the answers to the second of three batches,
// after each number of them: each change has the outcome that the kernel told, or an
// error that says that it is not known.
func TestApplyLosesNoChange(t *testing.T) {
	const (
		size   = maxUnread     // of a batch
		step   = 10            // every such change is refused
		answer = size/step + 1 // datagrams: the refusals, and the acknowledgement of the last
	)
	troubles := map[string]struct {
		trouble func(s *fakeSocket, b []byte) (int, error)
		want    error
	}{
		"the socket wedges": {func(s *fakeSocket, _ []byte) (int, error) {
			s.datagrams = nil
			return 0, nil
		}, os.ErrDeadlineExceeded},
		"another answer comes": {func(s *fakeSocket, _ []byte) (int, error) {
			stamp(s.datagrams[0], uint16(netlink.Error), 1)
			return 0, nil
		}, errStray},
		"answers are lost":     {func(*fakeSocket, []byte) (int, error) { return 0, syscall.ENOBUFS }, syscall.ENOBUFS},
		"the socket fails":     {func(*fakeSocket, []byte) (int, error) { return 0, syscall.EIO }, syscall.EIO},
		"half a message comes": {func(_ *fakeSocket, b []byte) (int, error) { return copy(b, "half"), nil }, errMessage},
	}
	for name, tt := range troubles {
		t.Run(name, func(t *testing.T) {
			for read := range answer {
				synctest.Test(t, func(t *testing.T) {
					k := &fakeKernel{family: 32, trouble: tt.trouble, after: answer + read}
					k.answer = func(uint8) ([][]byte, error) {
						if (len(k.seen)-1)%step == 0 {
							return nil, syscall.ESRCH
						}
						return done, nil
					}
					changes := deletions(3 * size)
					errs := k.client().Apply(t.Context(), changes)
					if len(errs) != len(changes) {
						t.Fatalf("%d errors for %d changes", len(errs), len(changes))
					}
					known := size // changes until the trouble
					if read > 0 {
						known += (read-1)*step + 1
					}
					for i, err := range errs {
						var op *OpError
						switch {
						case i >= known && i < 2*size:
							want(t, err, ErrUnanswered, tt.want)
						case i%step == 0:
							want(t, err, ErrNoService)
						case err != nil:
							t.Errorf("%d answers read: change %d: error %v", read, i, err)
						}
						if err != nil && (!errors.As(err, &op) || op.Object != changes[i].Key.String()+" "+changes[i].Address.String()) {
							t.Errorf("change %d: the error %v names another object", i, err)
						}
					}
					if len(k.seen) != len(changes) || k.opened != 2 {
						t.Errorf("%d requests over %d sockets, want %d over 2", len(k.seen), k.opened, len(changes))
					}
				})
			}
		})
	}
}

// TestApplyOverAReload has the module unloaded and loaded again between two calls:
// the requests with the old number of the family look like those for missing objects.
func TestApplyOverAReload(t *testing.T) {
	k := &fakeKernel{family: 32, answer: always(done, nil)}
	c := k.client()
	if errs := c.Apply(t.Context(), deletions(3)); errs != nil {
		t.Fatal(errs)
	}
	k.family = 33
	k.answer = func(uint8) ([][]byte, error) {
		if len(k.seen) == 3+7 {
			return nil, syscall.ENOENT // missing indeed
		}
		return done, nil
	}
	for i, err := range c.Apply(t.Context(), deletions(10)) {
		if i == 6 {
			want(t, err, os.ErrNotExist)
		} else {
			want(t, err, nil)
		}
	}
	if len(k.seen) != 13 {
		t.Errorf("the kernel saw %d requests, want 13", len(k.seen))
	}
}

// TestApplyOverABadReload has the requests sent again, for the family's new number, and
// that fail too.
func TestApplyOverABadReload(t *testing.T) {
	for family, target := range map[uint16]error{33: ErrUnanswered, 0: ErrNoModule} {
		synctest.Test(t, func(t *testing.T) {
			k := &fakeKernel{family: 32, answer: always(done, nil)}
			c := k.client()
			if errs := c.Apply(t.Context(), deletions(3)); errs != nil {
				t.Fatal(errs)
			}
			k.family, k.answer = family, always(nil, nil)
			errs := c.Apply(t.Context(), deletions(10))
			if len(errs) != 10 {
				t.Fatalf("%d errors for 10 changes", len(errs))
			}
			for _, err := range errs {
				want(t, err, target)
			}
		})
	}
}

// TestInterruptedList reads a list again that changed under the kernel's hands.
func TestInterruptedList(t *testing.T) {
	k := &fakeKernel{family: 32, flags: netlink.DumpInterrupted}
	once := appendService(nil, &ipvs.Service{Key: ipvs.ServiceMarked(ipvs.IPv4, 1), Scheduler: "rr"})
	k.answer = func(uint8) ([][]byte, error) {
		if len(k.seen) == 2 {
			k.flags = 0
		}
		return [][]byte{once}, nil
	}
	services, err := k.client().Services(t.Context())
	if err != nil || len(services) != 1 || len(k.seen) != 2 {
		t.Errorf("%d services after %d lists, error %v", len(services), len(k.seen), err)
	}
	k.answer, k.flags = always([][]byte{once}, nil), netlink.DumpInterrupted
	if _, err := k.client().Services(t.Context()); !errors.Is(err, errInterrupted) || len(k.seen) != 2+maxReads {
		t.Errorf("error %v after %d lists", err, len(k.seen)-2)
	}
}
