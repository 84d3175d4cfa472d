package ipvs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrInvalid is matched by every error about a value that breaks a rule.
var ErrInvalid = errors.New("invalid")

// FieldError says which field of a document breaks which rule. It matches
// ErrInvalid.
type FieldError struct {
	Path   string // like "services[2].destinations[0].weight", in document form
	Reason string
}

// Error returns "path: reason".
func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

// Is makes a FieldError match ErrInvalid.
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

func invalidf(format string, args ...any) error {
	return &FieldError{Reason: fmt.Sprintf(format, args...)}
}

// fields collects the errors of an object's fields.
type fields struct {
	errs []error
}

func (f *fields) add(path string, err error) {
	if err == nil {
		return
	}
	var field *FieldError
	if errors.As(err, &field) {
		f.errs = append(f.errs, &FieldError{Path: joinPath(path, field.Path), Reason: field.Reason})
	} else {
		f.errs = append(f.errs, &FieldError{Path: path, Reason: err.Error()})
	}
}

func (f *fields) addAll(path string, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			f.add(path, e)
		}
		return
	}
	f.add(path, err)
}

func (f *fields) addf(path, format string, args ...any) {
	f.add(path, fmt.Errorf(format, args...))
}

func (f *fields) err() error { return errors.Join(f.errs...) }

func joinPath(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "." + b
}

// Validate reports every rule that s and its destinations break, as joined
// FieldErrors with paths relative to the service. s must be normalized.
func (s *Service) Validate() error {
	var f fields
	f.add("service", s.Key.Validate())
	f.addAll("", checkTexts(s.Name, s.Comment))
	if s.NoVIP && s.Key.FWMark != 0 {
		f.addf("vip", "is for services with an address, not for fwmark")
	}
	f.add("scheduler", CheckScheduler(s.Scheduler))
	f.add("flags", s.Flags.checkFor(s.Scheduler))
	if s.Flags&OnePacket != 0 && s.Key.FWMark == 0 && s.Key.Protocol != UDP {
		f.addf("flags", "one-packet is for udp and fwmark services, not %s", s.Key.Protocol)
	}
	f.addAll("persistence", s.Persistence.validateIn(s))
	if s.Key.FWMark == 0 && s.Key.Port == 0 && s.Persistence.Timeout == 0 {
		f.addf("service", "port 0 (every port) needs persistence")
	}
	f.addAll("", s.checkDestinations())
	return f.err()
}

func (s *Service) checkDestinations() error {
	var f fields
	for i, d := range s.Destinations {
		path := fmt.Sprintf("destinations[%d]", i)
		f.addAll(path, d.validateIn(s))
		if i > 0 && s.Destinations[i-1].Addr == d.Addr {
			f.addf(path+".address", "duplicate: %s is in the service twice", d.Addr)
		}
	}
	return f.err()
}

func (p Persistence) validateIn(s *Service) error {
	var f fields
	f.add("timeout", p.Timeout.check(MaxTimeout))
	switch s.Key.Family {
	case IPv4:
		if p.Prefix != 0 {
			f.addf("prefix", "is for IPv6 services; this one is IPv4, which has netmask")
		}
		if p.Netmask.IsValid() {
			f.add("netmask", CheckNetmask(p.Netmask))
		}
	case IPv6:
		if p.Netmask.IsValid() {
			f.addf("netmask", "is for IPv4 services; this one is IPv6, which has prefix")
		}
		if p.Prefix > 128 {
			f.addf("prefix", "%d is not from 1 to 128", p.Prefix)
		}
	}
	if p.Engine != "" && p.Engine != "sip" {
		f.addf("engine", "unknown persistence engine %q, want sip", p.Engine)
	}
	if p.Engine == "sip" && s.Key.FWMark == 0 && s.Key.Protocol != UDP {
		f.addf("engine", "sip works on udp services only, not %s", s.Key.Protocol)
	}
	if p.Timeout == 0 && f.errs == nil {
		const reason = "needs persistence.timeout"
		if p.Netmask.IsValid() {
			f.addf("netmask", reason)
		}
		if p.Prefix != 0 {
			f.addf("prefix", reason)
		}
		if p.Engine != "" {
			f.addf("engine", reason)
		}
	}
	return f.err()
}

// CheckScheduler reports why name is not one of Schedulers.
func CheckScheduler(name string) error {
	switch {
	case len(name) > 15:
		return fmt.Errorf("%q has %d characters, the kernel's limit is 15", name, len(name))
	case !slices.Contains(Schedulers(), name):
		return fmt.Errorf("unknown scheduler %q, want one of %s", name, strings.Join(Schedulers(), ", "))
	}
	return nil
}

// CheckNetmask refuses what is no IPv4 netmask. The kernel takes any bits, and with a
// mistyped or inverted mask counts clients as one that have nothing in common.
func CheckNetmask(mask netip.Addr) error {
	if !mask.Is4() || mask.IsUnspecified() {
		return fmt.Errorf("%s is not an IPv4 netmask like 255.255.255.0", mask)
	}
	b := mask.As4()
	if rest := ^binary.BigEndian.Uint32(b[:]); rest&(rest+1) != 0 {
		return fmt.Errorf("%s has a gap or is inverted: a netmask is ones and then zeros, like 255.255.255.0", mask)
	}
	return nil
}

// validateIn reports every rule that d breaks as a destination of s.
func (d Destination) validateIn(s *Service) error {
	var f fields
	f.add("address", CheckUnicast(d.Addr.Addr()))
	if a := d.Addr.Addr(); a.Is6() && a.IsLinkLocalUnicast() {
		f.addf("address", "%s is link-local: the kernel could not tell on which link", a)
	}
	f.addAll("", checkTexts(d.Name, d.Comment))
	switch d.Forward {
	case Masq, DRoute, Tunnel:
	default:
		f.addf("forward", "%s is not masq, droute or tunnel", d.Forward)
	}
	if d.Weight < 0 {
		f.addf("weight", "%d is not from 0 to 2147483647", d.Weight)
	}
	if d.Upper < 0 {
		f.addf("upper", "%d is not from 0 to 2147483647", d.Upper)
	}
	switch {
	case d.Lower > 0 && d.Upper == 0:
		f.addf("lower", "needs upper")
	case d.Lower < 0 || d.Lower > max(d.Upper, 0):
		f.addf("lower", "%d is not from 0 to upper (%d)", d.Lower, d.Upper)
	}
	if d.Forward != Masq && s.Key.FWMark == 0 && d.Addr.Port() != s.Key.Port {
		f.addf("address", "port %d differs from the service's port %d, but %s does not rewrite ports: use the same port, or masq", d.Addr.Port(), s.Key.Port, d.Forward)
	}
	if d.Addr.IsValid() && FamilyOf(d.Addr.Addr()) != s.Key.Family && d.Forward != Tunnel {
		f.addf("address", "%s is not %s like the service; only tunnel destinations may differ", d.Addr.Addr(), s.Key.Family)
	}
	f.addAll("tunnel", d.Tunnel.validateIn(d))
	return f.err()
}

func (t TunnelOptions) validateIn(d Destination) error {
	var f fields
	if d.Forward != Tunnel {
		if t != (TunnelOptions{}) {
			f.addf("", "is for forward: tunnel, not %s", d.Forward)
		}
		return f.err()
	}
	switch t.Type {
	case IPIP:
		if t.Checksum != NoCsum {
			f.addf("checksum", "ipip has no checksum option")
		}
	case GUE:
		if t.Port == 0 {
			f.addf("port", "gue needs a UDP port from 1 to 65535")
		}
	case GRE:
		if t.Checksum == RemCsum {
			f.addf("checksum", "remcsum is for gue only")
		}
	default:
		f.addf("type", "%s is not ipip, gue or gre", t.Type)
	}
	if t.Type != GUE && t.Port != 0 {
		f.addf("port", "is for gue, not %s", t.Type)
	}
	if t.Checksum > RemCsum {
		f.addf("checksum", "%d is not nocsum, csum or remcsum", t.Checksum)
	}
	return f.err()
}

// Validate reports every rule that s breaks, with paths relative to the sync
// section.
func (s Sync) Validate() error {
	var f fields
	rangeOf := func(name string, v, low, high int) {
		if v != 0 && (v < low || v > high) {
			f.addf(name, "%d is not from %d to %d", v, low, high)
		}
	}
	rangeOf("id", s.ID, 1, 255)
	rangeOf("port", s.Port, 1, 65535)
	rangeOf("ttl", s.TTL, 1, 255)
	if s.MaxLen > MaxSyncMaxLen {
		f.addf("maxlen", "%d is above %d: the kernel counts the connections of a message in 8 bits, longer messages would lose some", s.MaxLen, MaxSyncMaxLen)
	} else {
		rangeOf("maxlen", s.MaxLen, 1024, MaxSyncMaxLen)
	}
	if s.Group.IsValid() && (!s.Group.Is4() || !s.Group.IsMulticast()) {
		f.addf("group", "%s is not an IPv4 multicast address", s.Group)
	}
	if s.Group6.IsValid() && (!s.Group6.Is6() || !s.Group6.IsMulticast() || s.Group6.Zone() != "") {
		f.addf("group6", "%s is not an IPv6 multicast address", s.Group6)
	}
	if s.Group.IsValid() && s.Group6.IsValid() {
		f.addf("group6", "excludes group: a daemon has one group")
	}
	return f.err()
}

// Validate reports every rule that t breaks, with paths relative to the timeouts
// section.
func (t Timeouts) Validate() error {
	var f fields
	f.add("tcp", t.TCP.check(MaxConnectionTimeout))
	f.add("tcp_fin", t.TCPFin.check(MaxConnectionTimeout))
	f.add("udp", t.UDP.check(MaxConnectionTimeout))
	return f.err()
}

func checkTexts(name, comment string) error {
	var f fields
	f.add("name", CheckText(name, MaxName))
	f.add("comment", CheckText(comment, MaxComment))
	return f.err()
}

// CheckText reports why text cannot be a name or a comment of at most limit bytes.
func CheckText(text string, limit int) error {
	switch {
	case len(text) > limit:
		return fmt.Errorf("has %d bytes, the limit is %d", len(text), limit)
	case !utf8.ValidString(text):
		return errors.New("is not valid UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("holds a control character")
	}
	return nil
}
