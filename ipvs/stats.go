package ipvs

// Stats are traffic counters, 64 bits wide, as the kernel's estimator last saw
// them (every 2 s).
type Stats struct {
	Connections uint64 `json:"connections"`
	InPackets   uint64 `json:"in_packets"`
	OutPackets  uint64 `json:"out_packets"`
	InBytes     uint64 `json:"in_bytes"`
	OutBytes    uint64 `json:"out_bytes"`
	Rates       Rates  `json:"rates"`
}

// Rates are per second.
type Rates struct {
	Connections uint64 `json:"connections"`
	InPackets   uint64 `json:"in_packets"`
	OutPackets  uint64 `json:"out_packets"`
	InBytes     uint64 `json:"in_bytes"`
	OutBytes    uint64 `json:"out_bytes"`
}

// ServiceEntry is a virtual service as a kernel reports it, without its
// destinations.
type ServiceEntry struct {
	Service
	Stats Stats
}

// DestinationEntry is a destination as a kernel reports it.
type DestinationEntry struct {
	Destination
	ActiveConnections     uint32
	InactiveConnections   uint32
	PersistentConnections uint32
	Stats                 Stats
}

// Info describes a kernel's IPVS.
type Info struct {
	Version       uint32 // 0x010201 is 1.2.1
	ConnTableSize uint32 // buckets of the connection table
}
