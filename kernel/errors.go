package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// What an OpError may match, besides os.ErrExist, os.ErrNotExist,
// os.ErrPermission, ipvs.ErrInvalid and the kernel's errno. The first three also
// match os.ErrNotExist.
var (
	ErrNoModule    = errors.New("no IPVS in this kernel")      // ip_vs is not loaded and could not be
	ErrNoScheduler = errors.New("no such scheduler or engine") // the module of a scheduler or persistence engine
	ErrNoService   = errors.New("no such virtual service")     // also: no service for the destination
	ErrUnanswered  = errors.New("no answer, outcome unknown")  // the kernel may have carried out the request
)

// OpError is a failed request.
type OpError struct {
	Op     string // one of the Op constants
	Object string // what it was about, see Request.Object; empty for all
	Hint   string // what the error means and what to do, or empty
	Err    error  // a syscall.Errno when the kernel refused
	Kind   error  // one of the errors above, ipvs.ErrInvalid, or nil
}

// Error names operation, object, meaning and error.
func (e *OpError) Error() string {
	parts := []string{strings.TrimSpace(e.Op + " " + e.Object)}
	if e.Hint != "" {
		parts = append(parts, e.Hint)
	}
	return strings.Join(append(parts, e.Err.Error()), ": ")
}

// Unwrap returns Err and Kind.
func (e *OpError) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Kind}
}

// Is makes ESRCH, the kernel's word for a missing service or daemon, match
// os.ErrNotExist.
func (e *OpError) Is(target error) bool {
	return target == os.ErrNotExist && errors.Is(e.Err, syscall.ESRCH)
}

// Refused returns the error for a request that the kernel answered with errno. It
// is exported for stand-ins of the kernel, so that their errors read the same.
func (r Request) Refused(errno syscall.Errno) *OpError {
	e := &OpError{Op: r.Op, Object: r.Object(), Err: errno}
	e.Hint, e.Kind = r.explain(errno)
	return e
}

// explain translates errno (net/netfilter/ipvs/ip_vs_ctl.c and ip_vs_sync.c).
func (r Request) explain(errno syscall.Errno) (hint string, kind error) {
	switch errno {
	case syscall.EPERM, syscall.EACCES:
		return "IPVS needs CAP_NET_ADMIN in the initial user namespace; being root in a container's own is not enough", nil
	case syscall.ENOPROTOOPT:
		return "ip_vs is being unloaded", nil
	case syscall.EOPNOTSUPP:
		return "this kernel's IPVS does not know the command", nil
	case syscall.ENOBUFS:
		return "answers were lost: read the table again", ErrUnanswered
	case syscall.EAFNOSUPPORT:
		return "IPv6 is switched off in this kernel", ipvs.ErrInvalid
	}
	switch r.Op {
	case OpStartDaemon, OpStopDaemon:
		return r.explainDaemon(errno)
	case OpDial:
		if errno == syscall.ENOENT {
			return "this kernel has no IPVS; load it: modprobe ip_vs", ErrNoModule
		}
		return "", nil
	}
	switch errno {
	case syscall.ESRCH:
		return "no such virtual service", ErrNoService
	case syscall.EEXIST:
		return "it exists", nil
	case syscall.ENOENT:
		if r.Service != nil {
			return r.explainScheduler(), ErrNoScheduler
		}
		return "no such destination", nil
	case syscall.ERANGE:
		return "the weight is negative, or the lower threshold above the upper one", ipvs.ErrInvalid
	case syscall.EINVAL:
		return r.explainInvalid(), ipvs.ErrInvalid
	}
	return "", nil
}

func (r Request) explainScheduler() string {
	s := r.Service
	hint := fmt.Sprintf("the kernel has no scheduler %q", s.Scheduler)
	load := "modprobe ip_vs_" + s.Scheduler
	if engine := s.Persistence.Engine; engine != "" {
		hint += fmt.Sprintf(" or no persistence engine %q", engine)
		load += ", modprobe ip_vs_pe_" + engine
	}
	return hint + "; load it: " + load
}

func (r Request) explainInvalid() string {
	if d := r.Destination; d != nil {
		switch {
		case ipvs.FamilyOf(d.Addr.Addr()) != r.Key.Family && d.Forward != ipvs.Tunnel:
			return "only tunnel destinations may have another address family than their service"
		case ipvs.FamilyOf(d.Addr.Addr()) != r.Key.Family:
			return "no destination may have another address family than its service while a sync daemon runs"
		case d.Tunnel.Type == ipvs.GUE && d.Tunnel.Port == 0:
			return "a gue tunnel needs a port"
		}
		return "the address is not a unicast one, or this kernel does not know one of the parameters"
	}
	if r.Op == OpSetTimeouts {
		return "a timeout is longer than this kernel allows"
	}
	return "the kernel does not accept one of the parameters"
}

func (r Request) explainDaemon(errno syscall.Errno) (hint string, kind error) {
	switch errno {
	case syscall.EEXIST:
		return "one is running; its parameters cannot be changed, stop it first", nil
	case syscall.ESRCH:
		return "none is running", nil
	case syscall.ENODEV:
		return "there is no such interface", nil
	case syscall.ENETUNREACH:
		return "the interface is down or has no route for the multicast group", nil
	case syscall.EADDRNOTAVAIL:
		return "the interface has no usable source address yet; try again in a few seconds", nil
	case syscall.EINVAL:
		return "the group is not a multicast address, or a service has a destination of another address family", ipvs.ErrInvalid
	}
	return "", nil
}
