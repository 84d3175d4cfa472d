package cluster

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// An entry is what one node knows of another.
type entry struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"`
	Address string `json:"address"` // ip:port
	Witness bool   `json:"witness,omitempty"`
}

// A book holds the newest known name, role and address of each member, so that an
// unreachable one still has a name and a moved one is found. It is a convenience
// that survives restarts, not a truth: raft's configuration says who is a member.
type book struct {
	path string
	disk *disk
	log  *slog.Logger
	// configured returns the address of a member in raft's configuration, for one that
	// has not spoken yet; "" when it is none.
	configured func(id string) string

	mu      sync.Mutex
	entries map[string]entry // by id
	changed bool             // since the last save
}

func openBook(disk *disk, log *slog.Logger) *book {
	b := &book{path: filepath.Join(disk.dir, "members.json"), disk: disk, log: log, entries: map[string]entry{}}
	data, err := os.ReadFile(b.path)
	if err != nil {
		return b
	}
	var list []entry
	if err := json.Unmarshal(data, &list); err != nil {
		log.Warn("members' names are forgotten until they answer", "file", b.path, "error", err)
		return b
	}
	for _, e := range list {
		b.entries[e.ID] = e
	}
	return b
}

// get returns the entry of id, or one with only the id.
func (b *book) get(id string) entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	e.ID = id
	return e
}

// list returns all entries by id.
func (b *book) list() []entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.SortedFunc(maps.Values(b.entries), func(a, c entry) int { return strings.Compare(a.ID, c.ID) })
}

// learn notes what a node said of itself.
func (b *book) learn(e entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries[e.ID] != e {
		b.entries[e.ID] = e
		b.changed = true
	}
}

// hearsay notes what others say of nodes that have not spoken themselves.
func (b *book) hearsay(list []entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range list {
		if _, ok := b.entries[e.ID]; !ok {
			b.entries[e.ID] = e
			b.changed = true
		}
	}
}

// keep forgets everyone who is not in members, and saves the rest when it changed.
// It is for one goroutine.
func (b *book) keep(members map[string]bool) {
	b.mu.Lock()
	for id := range b.entries {
		if !members[id] {
			delete(b.entries, id)
			b.changed = true
		}
	}
	changed := b.changed
	b.changed = false
	b.mu.Unlock()
	if !changed {
		return
	}
	// Without the lock: raft asks for an address before each message, and a slow disk
	// must not hold its heartbeats.
	if err := b.disk.writeFile(b.path, b.list()); err != nil {
		b.log.Warn("members' names are not saved", "error", err)
		b.mu.Lock()
		b.changed = true
		b.mu.Unlock()
	}
}

// ServerAddr implements raft.ServerAddressProvider. The address carries the id, so
// that a connection to a node that has taken over another's address is refused.
func (b *book) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	address := b.get(string(id)).Address
	if address == "" {
		address = b.configured(string(id))
	}
	return raft.ServerAddress(string(id) + "@" + address), nil
}
