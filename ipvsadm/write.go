// Package ipvsadm writes a virtual service table in the language of ipvsadm(8).
package ipvsadm

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Write writes t as the lines that `ipvsadm -Sn` of ipvsadm 1.31 prints for it, in
// the order of t; `ipvsadm -R` reads them. It adds what ipvsadm leaves out or gets
// wrong, so that nothing of the services is lost on the way:
//
//   - the connection thresholds, -x and -y, at the end of the line;
//   - flag-3 of the schedulers sh and mh;
//   - firewall marks above 2147483647, which ipvsadm prints as negative numbers, and
//     orders and refuses to read accordingly.
//
// Names, comments, timeouts and sync settings have no form in these lines.
func Write(w io.Writer, t ipvs.Table) error {
	b := bufio.NewWriter(w)
	for s := range t.Services() {
		key := keyOption(s.Key)
		fmt.Fprintf(b, "-A %s%s\n", key, serviceOptions(s))
		for _, d := range s.Destinations {
			fmt.Fprintf(b, "-a %s -r %s%s\n", key, d.Addr, destinationOptions(d))
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write the table as ipvsadm commands: %w", err)
	}
	return nil
}

func keyOption(k ipvs.ServiceKey) string {
	if k.FWMark != 0 {
		option := fmt.Sprintf("-f %d", k.FWMark)
		if k.Family == ipvs.IPv6 {
			option += " -6"
		}
		return option
	}
	_, addr, _ := strings.Cut(k.String(), "://")
	switch k.Protocol {
	case ipvs.UDP:
		return "-u " + addr
	case ipvs.SCTP:
		return "--sctp-service " + addr
	}
	return "-t " + addr
}

func serviceOptions(s *ipvs.Service) string {
	var b strings.Builder
	fmt.Fprintf(&b, " -s %s", s.Scheduler)
	if p := s.Persistence; p.Timeout != 0 {
		fmt.Fprintf(&b, " -p %d", uint32(p.Timeout))
		switch {
		case p.Netmask.IsValid():
			fmt.Fprintf(&b, " -M %s", p.Netmask)
		case p.Prefix != 0:
			fmt.Fprintf(&b, " -M %d", p.Prefix)
		}
		if p.Engine != "" {
			fmt.Fprintf(&b, " --pe %s", p.Engine)
		}
	}
	if s.Flags&ipvs.OnePacket != 0 {
		b.WriteString(" -o")
	}
	if flags := s.Flags &^ ipvs.OnePacket; flags != 0 {
		fmt.Fprintf(&b, " -b %s", flags)
	}
	return b.String()
}

func destinationOptions(d ipvs.Destination) string {
	forward := "-g"
	switch d.Forward {
	case ipvs.Masq:
		forward = "-m"
	case ipvs.Tunnel:
		forward = "-i"
	}
	var b strings.Builder
	fmt.Fprintf(&b, " %s -w %d", forward, d.Weight)
	if d.Forward == ipvs.Tunnel {
		fmt.Fprintf(&b, " --tun-type %s", d.Tunnel.Type)
		if d.Tunnel.Type == ipvs.GUE {
			fmt.Fprintf(&b, " --tun-port %d", d.Tunnel.Port)
		}
		if d.Tunnel.Type != ipvs.IPIP {
			fmt.Fprintf(&b, " --tun-%s", d.Tunnel.Checksum)
		}
	}
	if d.Upper != 0 {
		fmt.Fprintf(&b, " -x %d", d.Upper)
	}
	if d.Lower != 0 {
		fmt.Fprintf(&b, " -y %d", d.Lower)
	}
	return b.String()
}
