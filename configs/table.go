package configs

import (
	"errors"
	"fmt"
	"math"

	"go.yaml.in/yaml/v3"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// ParseTable reads a table file, YAML or JSON. name is what errors call it. The
// document is valid: its Table method returns no error. The error joins one *Error
// for each mistake and matches ipvs.ErrInvalid.
//
// The key "services" is required, because the file is the whole table: an empty
// file, or one that was cut off, must not delete everything.
func ParseTable(data []byte, name string) (ipvs.Document, error) {
	f, err := parse(name, data)
	if err != nil {
		return ipvs.Document{}, err
	}
	var doc ipvs.Document
	if f.root != nil {
		f.keys(f.root, "", tableKeys(&doc))
	}
	if len(f.errs) == 0 && !f.has("services") {
		f.failf("services", "is missing; %s", required["services"])
	}
	// What was not understood is not judged.
	if len(f.errs) == 0 {
		_, err := doc.Table()
		f.addFieldErrors("", err)
	}
	if err := join(f.errs); err != nil {
		return ipvs.Document{}, err
	}
	return doc, nil
}

func tableKeys(doc *ipvs.Document) []key {
	return []key{
		{name: "sync", read: func(f *file, path string, n *yaml.Node) {
			doc.Sync = &ipvs.Sync{}
			enabled := true
			f.keys(n, path, syncKeys(doc.Sync, &enabled))
			doc.Sync.Disabled = !enabled
		}},
		{name: "timeouts", read: func(f *file, path string, n *yaml.Node) {
			doc.Timeouts = &ipvs.Timeouts{}
			f.keys(n, path, timeoutKeys(doc.Timeouts))
		}},
		{name: "vips", read: func(f *file, path string, n *yaml.Node) {
			doc.VIPs = &ipvs.VIPs{}
			switch n.Kind {
			case yaml.ScalarNode:
				unmarshal(doc.VIPs)(f, path, n)
			case yaml.SequenceNode:
				doc.VIPs.Listed = true
				mappings(&doc.VIPs.List, ipvs.VIP{}, "address", vipKeys)(f, path, n)
			default:
				f.failAt(n, path, "want auto or a list, not "+kind(n))
			}
		}},
		{name: "services", read: mappings(&doc.Services, ipvs.Service{}, "service", serviceKeys)},
	}
}

func syncKeys(s *ipvs.Sync, enabled *bool) []key {
	return []key{
		{name: "enabled", read: boolean(enabled)},
		{name: "id", read: number(&s.ID, 1, 255)},
		{name: "group", read: address(&s.Group, nil)},
		{name: "group6", read: address(&s.Group6, nil)},
		{name: "port", read: number(&s.Port, 1, 65535)},
		{name: "ttl", read: number(&s.TTL, 1, 255)},
		{name: "maxlen", read: number(&s.MaxLen, 0, math.MaxInt32)},
	}
}

func timeoutKeys(t *ipvs.Timeouts) []key {
	return []key{
		{name: "tcp", read: unmarshal(&t.TCP)},
		{name: "tcp_fin", read: unmarshal(&t.TCPFin)},
		{name: "udp", read: unmarshal(&t.UDP)},
	}
}

func vipKeys(v *ipvs.VIP) []key {
	return []key{
		{name: "address", read: prefix(&v.Prefix, nil)},
		{name: "network", read: text(&v.Network, ipvs.CheckNetwork)},
	}
}

func serviceKeys(s *ipvs.Service) []key {
	return []key{
		{name: "service", read: unmarshal(&s.Key)},
		{name: "name", read: text(&s.Name, nil)},
		{name: "comment", read: text(&s.Comment, nil)},
		{name: "vip", read: negated(&s.NoVIP)},
		{name: "scheduler", read: text(&s.Scheduler, func(name string) error {
			if name == "" {
				return errors.New("is empty; leave the key out to have " + ipvs.DefaultScheduler)
			}
			return nil
		})},
		{name: "persistence.timeout", read: scalar(func(text string) error {
			if err := s.Persistence.Timeout.UnmarshalText([]byte(text)); err != nil {
				return err
			}
			if s.Persistence.Timeout == 0 { // which would be no persistence
				return fmt.Errorf("%s is not from 1s to %s; leave persistence out to have none", text, ipvs.MaxTimeout)
			}
			return nil
		})},
		{name: "persistence.netmask", read: address(&s.Persistence.Netmask, nil)},
		{name: "persistence.prefix", read: number(&s.Persistence.Prefix, 1, 128)},
		{name: "persistence.engine", read: text(&s.Persistence.Engine, nil)},
		{name: "flags", read: list(func(int) reader {
			return scalar(func(name string) error {
				flag, err := ipvs.ParseFlag(name)
				s.Flags |= flag
				return err
			})
		})},
		{name: "destinations", read: mappings(&s.Destinations, ipvs.DefaultDestination, "address", destinationKeys)},
	}
}

func destinationKeys(d *ipvs.Destination) []key {
	return []key{
		{name: "address", read: addressPort(&d.Addr)},
		{name: "name", read: text(&d.Name, nil)},
		{name: "comment", read: text(&d.Comment, nil)},
		{name: "forward", read: unmarshal(&d.Forward)},
		{name: "weight", read: number(&d.Weight, 0, math.MaxInt32)},
		{name: "upper", read: number(&d.Upper, 0, math.MaxInt32)},
		{name: "lower", read: number(&d.Lower, 0, math.MaxInt32)},
		{name: "tunnel.type", read: unmarshal(&d.Tunnel.Type)},
		{name: "tunnel.port", read: number(&d.Tunnel.Port, 1, 65535)},
		{name: "tunnel.checksum", read: unmarshal(&d.Tunnel.Checksum)},
	}
}
