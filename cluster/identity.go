package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/durable"
)

// A record is what a node must never forget. It is on disk before anything that
// depends on it is said or done.
type record struct {
	ID        string `json:"id"`                   // this node, 16 hex digits
	Cluster   string `json:"cluster"`              // the name under which the directory was made
	ClusterID string `json:"cluster_id,omitempty"` // "" until a cluster is founded or joined
	// Former are ids that the cluster had before it was recovered from this node.
	Former []string `json:"former,omitempty"`
	// Member is set once this node is a voter, or the leader says that it is in the
	// committed configuration: from then on, not being in there means removed.
	Member  bool `json:"member,omitempty"`
	Removed bool `json:"removed,omitempty"`
	Copied  bool `json:"copied,omitempty"` // another node runs with this id
	// Promised is the longest lease that this node may have granted, see guard.
	Promised time.Duration `json:"promised,omitempty"`
	// Pledge is this node's one promise to help found a cluster.
	Pledge *pledge `json:"pledge,omitempty"`
	// Servers is the first configuration. Only the founder has it, and it is
	// written together with ClusterID: that write is the founding.
	Servers []entry `json:"servers,omitempty"`
}

// An identity owns the record of a data directory and the directory's lock.
type identity struct {
	dir  string
	disk *disk
	lock *os.File

	writing sync.Mutex // held by update, over the disk
	mu      sync.Mutex // guards rec, never held over the disk
	rec     record
}

// openIdentity locks the directory of disk and reads its record; a directory without
// one becomes a new node. It fails when another process holds the directory, when it belongs to
// another cluster, and with ErrRemoved or ErrCopied when its node must not come back.
func openIdentity(disk *disk, cluster string) (_ *identity, err error) {
	dir := disk.dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("data directory %s: another process uses it: %w", dir, err)
	}
	i := &identity{dir: dir, disk: disk, lock: lock}
	data, err := os.ReadFile(i.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// A log without an identity is a damaged directory. Making up a new id for
		// an old log could count one node as two.
		if _, err := os.Stat(filepath.Join(dir, "raft.db")); err == nil {
			return nil, fmt.Errorf("data directory %s: raft.db without node.json; delete the directory to join as a new node", dir)
		}
		i.rec = record{ID: randomID(), Cluster: cluster}
		if err := i.save(i.rec); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("identity: %w", err)
	default:
		if err := json.Unmarshal(data, &i.rec); err != nil {
			return nil, fmt.Errorf("identity %s: %w; delete the data directory to join as a new node", i.path(), err)
		}
	}
	if i.rec.Cluster != cluster {
		return nil, fmt.Errorf("data directory %s belongs to cluster %q, not %q", dir, i.rec.Cluster, cluster)
	}
	if i.rec.Copied {
		return nil, fmt.Errorf("data directory %s: %w, and another node runs with the copy; delete this one to join anew", dir, ErrCopied)
	}
	if i.rec.Removed {
		return nil, fmt.Errorf("data directory %s: %w; delete the directory to join anew", dir, ErrRemoved)
	}
	return i, nil
}

func (i *identity) path() string { return filepath.Join(i.dir, "node.json") }

// get returns the record; what its pointers lead to must not be changed.
func (i *identity) get() record {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.rec
}

// update changes the record with f and returns the result once it is on disk. An
// error of f, or of the disk, changes nothing.
func (i *identity) update(f func(*record) error) (record, error) {
	i.writing.Lock()
	defer i.writing.Unlock()
	before := i.get()
	next := before
	if err := f(&next); err != nil {
		return before, err
	}
	if err := i.save(next); err != nil {
		return before, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rec = next
	return next, nil
}

func (i *identity) save(r record) error {
	if err := i.disk.writeFile(i.path(), r); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

func (i *identity) close() error { return i.lock.Close() }

// writeFile replaces path with v as JSON, durably.
func writeFile(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(path, append(data, '\n'))
}

// randomID returns 16 random hex digits.
func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
