package ipvs

// Limits. They are tested sizes, not the kernel's. What is beyond one is refused
// with an error that tells it, and changes nothing.
const (
	MaxServices            = 20_000
	MaxDestinations        = 200_000 // of all services
	MaxServiceDestinations = 10_000  // of one service; a change of a destination copies those of its service
	MaxVIPs                = 1024    // listed; what VIPs finds among the services has no limit: an address need not be one that a director can take
	MaxName                = 64      // bytes of a name
	MaxComment             = 256     // bytes of a comment
	MaxNetwork             = 15      // characters of a network's name

	// MaxCommand bounds a log entry, and with it the changes that are made at once, in
	// bytes. A whole new table above it is several entries.
	MaxCommand = 256 << 10
	// MaxDocument bounds a whole table in its document form, in bytes.
	MaxDocument = 64 << 20
	// MaxRequest bounds every other request of the API, in bytes.
	MaxRequest = 1 << 20
)
