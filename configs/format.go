package configs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// FormatTable writes doc as a table file, format being "yaml" or "json". Equal
// documents give equal bytes, and ParseTable reads back what it was given.
func FormatTable(doc ipvs.Document, format string) ([]byte, error) {
	switch format {
	case "yaml":
		return formatYAML(doc), nil
	case "json":
		if doc.Services == nil {
			doc.Services = []ipvs.Service{}
		}
		data, err := json.MarshalIndent(doc, "", "  ")
		return append(data, '\n'), err
	}
	return nil, fmt.Errorf("unknown table format %q, want yaml or json", format)
}

// formatYAML is written by hand because a table is read by people: one line for
// each destination, and nothing that is at its default.
func formatYAML(doc ipvs.Document) []byte {
	var b bytes.Buffer
	if doc.Sync != nil {
		fmt.Fprintf(&b, "sync: %s\n", inline(syncPairs(*doc.Sync)))
	}
	if t := doc.Timeouts; t != nil {
		var p pairs
		p.optional("tcp", t.TCP != 0, t.TCP)
		p.optional("tcp_fin", t.TCPFin != 0, t.TCPFin)
		p.optional("udp", t.UDP != 0, t.UDP)
		fmt.Fprintf(&b, "timeouts: %s\n", inline(p))
	}
	if doc.VIPs != nil {
		writeVIPs(&b, *doc.VIPs)
	}
	if len(doc.Services) == 0 {
		b.WriteString("services: []\n")
		return b.Bytes()
	}
	b.WriteString("services:\n")
	for _, s := range doc.Services {
		for i, pair := range servicePairs(s) {
			indent := "    "
			if i == 0 {
				indent = "  - "
			}
			b.WriteString(indent + pair + "\n")
		}
		if len(s.Destinations) > 0 {
			b.WriteString("    destinations:\n")
		}
		for _, d := range s.Destinations {
			fmt.Fprintf(&b, "      - %s\n", inline(destinationPairs(d)))
		}
	}
	return b.Bytes()
}

func writeVIPs(b *bytes.Buffer, v ipvs.VIPs) {
	switch {
	case !v.Listed:
		b.WriteString("vips: auto\n")
	case len(v.List) == 0:
		b.WriteString("vips: []\n")
	default:
		b.WriteString("vips:\n")
	}
	for _, vip := range v.List {
		var p pairs
		p.add("address", strconv.Quote(vip.Prefix.String()))
		p.optional("network", vip.Network != "", strconv.Quote(vip.Network))
		fmt.Fprintf(b, "  - %s\n", inline(p))
	}
}

func syncPairs(s ipvs.Sync) pairs {
	var p pairs
	p.add("enabled", !s.Disabled)
	p.optional("id", s.ID != 0, s.ID)
	p.optional("group", s.Group.IsValid(), s.Group)
	p.optional("group6", s.Group6.IsValid(), strconv.Quote(s.Group6.String()))
	p.optional("port", s.Port != 0, s.Port)
	p.optional("ttl", s.TTL != 0, s.TTL)
	p.optional("maxlen", s.MaxLen != 0, s.MaxLen)
	return p
}

func servicePairs(s ipvs.Service) pairs {
	var p pairs
	p.add("service", s.Key)
	p.optional("name", s.Name != "", strconv.Quote(s.Name))
	p.optional("comment", s.Comment != "", strconv.Quote(s.Comment))
	p.optional("vip", bool(s.NoVIP), false)
	p.optional("scheduler", s.Scheduler != "", s.Scheduler)
	if s.Persistence != (ipvs.Persistence{}) {
		var inner pairs
		inner.add("timeout", s.Persistence.Timeout)
		inner.optional("netmask", s.Persistence.Netmask.IsValid(), s.Persistence.Netmask)
		inner.optional("prefix", s.Persistence.Prefix != 0, s.Persistence.Prefix)
		inner.optional("engine", s.Persistence.Engine != "", s.Persistence.Engine)
		p.add("persistence", inline(inner))
	}
	p.optional("flags", s.Flags != 0, "["+strings.Join(s.Flags.Names(), ", ")+"]")
	return p
}

func destinationPairs(d ipvs.Destination) pairs {
	var p pairs
	p.add("address", strconv.Quote(d.Addr.String()))
	p.optional("name", d.Name != "", strconv.Quote(d.Name))
	p.optional("comment", d.Comment != "", strconv.Quote(d.Comment))
	p.add("forward", d.Forward)
	p.add("weight", d.Weight)
	p.optional("upper", d.Upper != 0, d.Upper)
	p.optional("lower", d.Lower != 0, d.Lower)
	if d.Tunnel != (ipvs.TunnelOptions{}) {
		var inner pairs
		inner.add("type", d.Tunnel.Type)
		inner.optional("port", d.Tunnel.Port != 0, d.Tunnel.Port)
		inner.optional("checksum", d.Tunnel.Checksum != ipvs.NoCsum, d.Tunnel.Checksum)
		p.add("tunnel", inline(inner))
	}
	return p
}

// pairs are the "key: value" of a mapping.
type pairs []string

func (p *pairs) add(key string, value any) { *p = append(*p, fmt.Sprintf("%s: %v", key, value)) }

func (p *pairs) optional(key string, set bool, value any) {
	if set {
		p.add(key, value)
	}
}

func inline(p pairs) string { return "{" + strings.Join(p, ", ") + "}" }
