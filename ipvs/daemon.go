package ipvs

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// DaemonState is the role of a connection-sync daemon, with the kernel's numbers
// (linux/ip_vs.h, IP_VS_STATE_*).
type DaemonState uint32

// The two roles. Both daemons may run at once on one host.
const (
	Master DaemonState = 1 // sends the state of connections
	Backup DaemonState = 2 // receives it
)

var daemonStateNames = []string{"none", "master", "backup"}

// String returns "master" or "backup".
func (s DaemonState) String() string { return enumName("state", daemonStateNames, s) }

// MarshalText implements encoding.TextMarshaler.
func (s DaemonState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *DaemonState) UnmarshalText(b []byte) (err error) {
	*s, err = parseEnum[DaemonState]("daemon state", daemonStateNames, string(b))
	return err
}

// MaxSyncMaxLen is the largest SyncMaxLen that is safe: an 8-byte header and 255
// records of 36 bytes. The kernel counts the records of a message in 8 bits and
// does not notice when a longer message wraps them; connections are then lost.
const MaxSyncMaxLen = 8 + 255*36

// Daemon is a connection-sync daemon of a kernel. It is comparable.
type Daemon struct {
	State     DaemonState `json:"state"`
	Interface string      `json:"interface"`       // 1..15 bytes
	SyncID    uint32      `json:"id"`              // 0..255; a backup with 0 accepts every id
	MaxLen    uint16      `json:"maxlen,omitzero"` // bytes of a sync message; 0 = the kernel's default
	Group     netip.Addr  `json:"group,omitzero"`  // multicast group, IPv4 or IPv6; unset = 224.0.0.81
	Port      uint16      `json:"port,omitzero"`   // UDP port; 0 = 8848
	TTL       uint8       `json:"ttl,omitzero"`    // multicast TTL or hop limit; 0 = 1
}

// Sync are the cluster-wide settings of connection sync. The zero value runs the
// daemons with the kernel's defaults and an id derived from the cluster's name.
type Sync struct {
	Disabled bool       // no daemon runs; allows destinations of another family than their service
	ID       int        // 1..255; 0 = derived
	Group    netip.Addr // IPv4 multicast group
	Group6   netip.Addr // IPv6 multicast group; excludes Group
	Port     int        // 1..65535; 0 = 8848
	TTL      int        // 1..255; 0 = 1
	MaxLen   int        // bytes, 1024..MaxSyncMaxLen; 0 = the kernel's default
}

// syncDocument is the document form of Sync.
type syncDocument struct {
	Enabled *bool      `json:"enabled,omitempty"`
	ID      *int       `json:"id,omitempty"`
	Group   netip.Addr `json:"group,omitzero"`
	Group6  netip.Addr `json:"group6,omitzero"`
	Port    int        `json:"port,omitzero"`
	TTL     int        `json:"ttl,omitzero"`
	MaxLen  int        `json:"maxlen,omitzero"`
}

func (s Sync) document() syncDocument {
	enabled := !s.Disabled
	doc := syncDocument{Enabled: &enabled, Group: s.Group, Group6: s.Group6, Port: s.Port, TTL: s.TTL, MaxLen: s.MaxLen}
	if s.ID != 0 {
		doc.ID = &s.ID
	}
	return doc
}

// MarshalJSON writes the document form, with "enabled" always present.
func (s Sync) MarshalJSON() ([]byte, error) { return json.Marshal(s.document()) }

// UnmarshalJSON reads the document form; unknown fields are errors.
func (s *Sync) UnmarshalJSON(b []byte) error {
	var doc syncDocument
	if err := strictJSON(b, &doc); err != nil {
		return err
	}
	*s = Sync{Disabled: doc.Enabled != nil && !*doc.Enabled, Group: doc.Group, Group6: doc.Group6, Port: doc.Port, TTL: doc.TTL, MaxLen: doc.MaxLen}
	if doc.ID != nil {
		if *doc.ID == 0 {
			return fmt.Errorf("sync id 0 would accept the messages of every cluster; use 1..255, or leave it out to have it derived from the cluster's name")
		}
		s.ID = *doc.ID
	}
	return nil
}

// Timeouts are the three connection timeouts that IPVS lets one set: established
// TCP, TCP after a FIN, and UDP. Zero leaves the kernel's value alone.
type Timeouts struct {
	TCP    Seconds `json:"tcp,omitzero"`
	TCPFin Seconds `json:"tcp_fin,omitzero"`
	UDP    Seconds `json:"udp,omitzero"`
}
