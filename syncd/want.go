// Package syncd decides which connection-sync daemons a kernel must run and makes
// it so.
//
// An active director runs the master daemon, which sends the state of its
// connections; a standby runs the backup daemon, which receives it. The package
// starts no goroutine: a Syncer is called by the one goroutine that writes to the
// kernel, and says when it wants to be called again.
package syncd

import (
	"hash/fnv"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Role is what a director does at the moment.
type Role int

// The roles.
const (
	None    Role = iota // takes no part: no daemon runs
	Standby             // receives the state of connections
	Active              // owns the VIPs and sends the state of connections
)

// String returns "none", "standby" or "active".
func (r Role) String() string {
	switch r {
	case Standby:
		return "standby"
	case Active:
		return "active"
	}
	return "none"
}

// Want returns the daemon that must run on iface in a role, and false when none
// may run. Settings left out stay zero: the kernel chooses them.
func Want(role Role, sync ipvs.Sync, cluster, iface string) (ipvs.Daemon, bool) {
	if sync.Disabled || role == None {
		return ipvs.Daemon{}, false
	}
	d := ipvs.Daemon{
		State: ipvs.Backup, Interface: iface, SyncID: uint32(sync.ID),
		MaxLen: uint16(sync.MaxLen), Group: sync.Group, Port: uint16(sync.Port), TTL: uint8(sync.TTL),
	}
	if role == Active {
		d.State = ipvs.Master
	}
	if sync.ID == 0 {
		d.SyncID = uint32(DefaultSyncID(cluster))
	}
	if sync.Group6.IsValid() {
		d.Group = sync.Group6
	}
	return d, true
}

// DefaultSyncID derives a sync id from a cluster's name, so that the clusters of
// one network segment do not mix. It is from 1 to 255, because a backup daemon
// with id 0 accepts the messages of every cluster, and it is the same in every
// release. Two names share an id by chance once in 255; set the id then.
func DefaultSyncID(cluster string) uint8 {
	h := fnv.New32a()
	h.Write([]byte(cluster))
	return uint8(h.Sum32()%255) + 1
}
