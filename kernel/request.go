package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// What a Request does. The names of the changes are those of package ipvs.
const (
	OpAddService        = string(ipvs.AddService)
	OpSetService        = string(ipvs.SetService)
	OpDeleteService     = string(ipvs.DeleteService)
	OpAddDestination    = string(ipvs.AddDestination)
	OpSetDestination    = string(ipvs.SetDestination)
	OpDeleteDestination = string(ipvs.DeleteDestination)
	OpStartDaemon       = "start-daemon"
	OpStopDaemon        = "stop-daemon"
	OpSetTimeouts       = string(ipvs.SetTimeouts)
	OpZero              = "zero"
	OpFlush             = "flush"
	OpServices          = "list-services"
	OpService           = "get-service"
	OpDestinations      = "list-destinations"
	OpDaemons           = "list-daemons"
	OpTimeouts          = "get-timeouts"
	OpInfo              = "get-info"
	OpDial              = "dial" // not a request: opening the socket
)

// Request is one request to a kernel. Which fields count depends on Op.
type Request struct {
	Op          string            // one of the Op constants
	Key         ipvs.ServiceKey   // the virtual service; for OpZero the zero value means all
	Service     *ipvs.Service     // OpAddService, OpSetService; its destinations are ignored
	Destination *ipvs.Destination // OpAddDestination, OpSetDestination
	Address     netip.AddrPort    // OpDeleteDestination
	Daemon      ipvs.Daemon       // OpStartDaemon; OpStopDaemon needs State only
	Timeouts    ipvs.Timeouts     // OpSetTimeouts
}

// RequestOf returns the request that carries out c. SetSync, SetTimeouts and
// SetVIPs are no edits of services: the error matches errors.ErrUnsupported.
func RequestOf(c ipvs.Change) (Request, error) {
	r := Request{Op: string(c.Op), Key: c.Key, Service: c.Service, Destination: c.Destination, Address: c.Address}
	switch c.Op {
	case ipvs.AddService, ipvs.SetService, ipvs.DeleteService,
		ipvs.AddDestination, ipvs.SetDestination, ipvs.DeleteDestination:
		return r, nil
	}
	return r, fmt.Errorf("%s is not a change of services or destinations: %w", c, errors.ErrUnsupported)
}

// Object names what r is about: "tcp://10.9.0.100:80 10.9.0.21:80", "master daemon".
func (r Request) Object() string {
	switch r.Op {
	case OpAddDestination, OpSetDestination:
		if r.Destination != nil {
			return fmt.Sprintf("%s %s", r.Key, r.Destination.Addr)
		}
	case OpDeleteDestination:
		return fmt.Sprintf("%s %s", r.Key, r.Address)
	case OpStartDaemon:
		return fmt.Sprintf("%s daemon on %q", r.Daemon.State, r.Daemon.Interface)
	case OpStopDaemon:
		return fmt.Sprintf("%s daemon", r.Daemon.State)
	}
	if r.Key == (ipvs.ServiceKey{}) {
		return ""
	}
	return r.Key.String()
}

// Check refuses what cannot be said to the kernel, or what the kernel would read
// as something else without an error. It is no full validation: what the kernel
// itself refuses passes. The error matches ipvs.ErrInvalid.
func (r Request) Check() error {
	if err := r.check(); err != nil {
		return &OpError{Op: r.Op, Object: r.Object(), Err: fmt.Errorf("%w: %w", ipvs.ErrInvalid, err)}
	}
	return nil
}

func (r Request) check() error {
	switch r.Op {
	case OpStartDaemon:
		return checkDaemon(r.Daemon)
	case OpStopDaemon:
		return checkRole(r.Daemon.State)
	case OpAddService, OpSetService, OpDeleteService, OpAddDestination, OpSetDestination, OpDeleteDestination, OpService, OpDestinations:
		if err := checkKey(r.Key); err != nil {
			return err
		}
	case OpZero:
		if r.Key != (ipvs.ServiceKey{}) {
			return checkKey(r.Key)
		}
	}
	switch r.Op {
	case OpAddService, OpSetService:
		if r.Service == nil || r.Service.Key != r.Key {
			return errors.New("the service is missing or has another key")
		}
		return checkService(r.Service)
	case OpAddDestination, OpSetDestination:
		if r.Destination == nil {
			return errors.New("the destination is missing")
		}
		return checkDestination(r.Destination)
	case OpDeleteDestination:
		return checkAddr(r.Address.Addr())
	}
	return nil
}

func checkKey(k ipvs.ServiceKey) error {
	if k.Family != ipvs.IPv4 && k.Family != ipvs.IPv6 {
		return fmt.Errorf("%s is not an address family of IPVS", k.Family)
	}
	if k.FWMark != 0 {
		if k.Addr.IsValid() || k.Port != 0 || k.Protocol != 0 {
			return errors.New("a firewall-mark service has no protocol, address or port")
		}
		return nil
	}
	if err := checkAddr(k.Addr); err != nil {
		return err
	}
	if ipvs.FamilyOf(k.Addr) != k.Family {
		return fmt.Errorf("family %s does not fit address %s", k.Family, k.Addr)
	}
	return nil
}

// checkAddr refuses IPv4-mapped addresses, which the kernel reads as 0.0.0.0.
func checkAddr(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("the address is missing")
	case a.Is4In6():
		return fmt.Errorf("address %s is IPv4 written as IPv6: use %s", a, a.Unmap())
	case a.Zone() != "":
		return fmt.Errorf("address %s has a zone", a)
	}
	return nil
}

func checkService(s *ipvs.Service) error {
	p := s.Persistence
	switch {
	case s.Scheduler == "":
		return errors.New("the scheduler is missing")
	case flagsOf(s.Scheduler, flagBits(s.Flags)) != s.Normalize().Flags:
		return fmt.Errorf("flags %s do not fit scheduler %s", s.Flags, s.Scheduler)
	case p.Timeout == 0 && p != (ipvs.Persistence{}):
		return errors.New("persistence has no timeout")
	case p.Timeout > ipvs.MaxTimeout:
		return fmt.Errorf("persistence timeout %s is above %s: the kernel would wrap it", p.Timeout, ipvs.MaxTimeout)
	case s.Key.Family == ipvs.IPv4 && (p.Prefix != 0 || p.Netmask.IsValid() && !p.Netmask.Is4()):
		return errors.New("an IPv4 service has an IPv4 netmask")
	case s.Key.Family == ipvs.IPv6 && p.Netmask.IsValid():
		return errors.New("an IPv6 service has a prefix length, not a netmask")
	}
	if err := checkString("scheduler", s.Scheduler, schedulerMax); err != nil {
		return err
	}
	return checkString("persistence engine", p.Engine, engineMax)
}

func checkString(what, s string, size int) error {
	if len(s) >= size {
		return fmt.Errorf("%s %q has %d bytes, the kernel's limit is %d", what, s, len(s), size-1)
	}
	if strings.ContainsRune(s, 0) {
		return fmt.Errorf("%s %q holds a NUL", what, s)
	}
	return nil
}

func checkDestination(d *ipvs.Destination) error {
	switch {
	case d.Forward > forwardMask:
		return fmt.Errorf("%s is not a forwarding method", d.Forward)
	case d.Upper < 0 || d.Lower < 0:
		return errors.New("a threshold is negative")
	case d.Tunnel.Type > ipvs.GRE || d.Tunnel.Checksum > ipvs.RemCsum:
		return fmt.Errorf("unknown tunnel options %s, %s", d.Tunnel.Type, d.Tunnel.Checksum)
	}
	return checkAddr(d.Addr.Addr())
}

func checkRole(s ipvs.DaemonState) error {
	if s != ipvs.Master && s != ipvs.Backup {
		return fmt.Errorf("%s is not master or backup", s)
	}
	return nil
}

func checkDaemon(d ipvs.Daemon) error {
	if err := checkRole(d.State); err != nil {
		return err
	}
	switch {
	case d.Interface == "":
		return errors.New("the interface is missing")
	case d.SyncID > 255:
		return fmt.Errorf("sync id %d is above 255: messages carry 8 bits of it, a backup compares them all", d.SyncID)
	case d.State == ipvs.Master && d.MaxLen > ipvs.MaxSyncMaxLen:
		return fmt.Errorf("maxlen %d is above %d: a message would hold more connections than its 8-bit counter", d.MaxLen, ipvs.MaxSyncMaxLen)
	case d.Group.Is4In6() || d.Group.Zone() != "":
		return fmt.Errorf("group %s is IPv4 written as IPv6, or has a zone", d.Group)
	}
	return checkString("interface", d.Interface, interfaceMax)
}
