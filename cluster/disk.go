package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"golang.org/x/sys/unix"
)

const (
	writeLimit = 2 * time.Second // for one write to the data directory
	writeTicks = 10              // in which a write's time is counted
	leaveTime  = time.Second     // for what does not wait for the disk to end when it stalls

	probes        = 3 // that must pass in a row before a node takes part
	probeRetry    = 200 * time.Millisecond
	maxProbeRetry = 10 * time.Second
	// electionProbes is how many probes take as long as an election does: it makes six
	// commits one after the other, on two nodes, and each waits twice for the disk.
	electionProbes = 6
)

// A disk watches the writes to the data directory. Raft's main loop waits for them:
// with a disk that hangs a leader would lead for ever, and deaf. So the first write
// that is late, or the first of raft's that fails, ends the node.
type disk struct {
	dir   string
	limit time.Duration

	failed chan struct{} // closed at the first failure
	err    error         // why; written before failed is closed
	once   sync.Once

	mu     sync.Mutex
	writes map[*write]bool // under way
}

// A write's age is counted in ticks, so that a time in which the whole process was
// stopped is one tick and no fault of the disk.
type write struct {
	what string
	left int // ticks
}

func newDisk(dir string, limit time.Duration) *disk {
	return &disk{dir: dir, limit: limit, failed: make(chan struct{}), writes: map[*write]bool{}}
}

// fail notes the first failure. What it wraps matches ErrDiskStalled.
func (d *disk) fail(what string, err error) {
	d.once.Do(func() {
		d.err = fmt.Errorf("data directory %s: %w: %s: %w", d.dir, ErrDiskStalled, what, err)
		close(d.failed)
	})
}

// failure is the first failure, nil when there was none.
func (d *disk) failure() error {
	select {
	case <-d.failed:
		return d.err
	default:
		return nil
	}
}

// watch does a write of so many bytes, and is what run looks at meanwhile.
func (d *disk) watch(what string, size int, do func() error) error {
	w := &write{what: what, left: writeTicks + writeTicks*size/int(slowestRate*d.limit.Seconds()+1)}
	d.mu.Lock()
	d.writes[w] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.writes, w)
		d.mu.Unlock()
	}()
	return do()
}

// writeFile is writeFile, watched.
func (d *disk) writeFile(path string, v any) error {
	return d.watch("write "+filepath.Base(path), 0, func() error { return writeFile(path, v) })
}

// run fails the disk when a write is late, until ctx ends.
func (d *disk) run(ctx context.Context) {
	tick := time.NewTicker(d.limit / writeTicks)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.age()
	}
}

// age makes each write that is under way a tick older.
func (d *disk) age() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.writes {
		if w.left--; w.left < 0 {
			d.fail(w.what, fmt.Errorf("not done within %s", d.limit))
		}
	}
}

// prove returns once the disk has taken a few writes in a row, each in time, and how
// long an election takes on it, by the usual one. It tries until ctx ends, and then returns an error;
// waiting is told why it takes so long.
func (d *disk) prove(ctx context.Context, waiting func(error)) (election time.Duration, err error) {
	path := filepath.Join(d.dir, "probe")
	result := make(chan error, 1)
	retry := probeRetry
	var took []time.Duration // by those that passed
	for len(took) < probes {
		began := time.Now()
		go func() { result <- probe(path) }()
		late := time.NewTimer(d.limit)
		select {
		case <-ctx.Done():
			select { // a write that can still end leaves nothing behind
			case <-result:
			case <-late.C:
			}
			late.Stop()
			return 0, ctx.Err()
		case err = <-result:
			late.Stop()
		case <-late.C:
			waiting(fmt.Errorf("a write takes longer than %s", d.limit))
			select { // one at a time
			case <-ctx.Done():
				return 0, ctx.Err()
			case err = <-result:
			}
			err = errors.Join(err, fmt.Errorf("a write took %s", time.Since(began).Round(time.Millisecond)))
		}
		if err == nil {
			took = append(took, time.Since(began))
			continue
		}
		took = nil
		waiting(err)
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(retry):
		}
		retry = min(2*retry, maxProbeRetry)
	}
	slices.Sort(took)
	return electionProbes * took[probes/2], nil
}

// probe writes as one commit of raft's log does: twice, each time to the disk.
func probe(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	page := make([]byte, os.Getpagesize())
	for range 2 {
		_, werr := f.WriteAt(page, 0)
		err = errors.Join(err, werr, unix.Fdatasync(int(f.Fd())))
	}
	return errors.Join(err, f.Close())
}

// A store is raft's log and stable store on a watched disk.
type store struct {
	*raftboltdb.BoltStore
	disk *disk
}

var (
	_ raft.LogStore    = (*store)(nil)
	_ raft.StableStore = (*store)(nil)
)

// persist does not return when the write fails. Raft panics when its term is not
// stored, and goes on with a log that lacks what it believes is in there. Its
// goroutine ends here instead, by its deferred calls: what it had promised nobody has
// been told.
func (s *store) persist(what string, size int, do func() error) error {
	if err := s.disk.watch(what, size, do); err != nil {
		s.disk.fail(what, err)
		runtime.Goexit()
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (s *store) StoreLogs(logs []*raft.Log) error {
	size := 0
	for _, l := range logs {
		size += len(l.Data)
	}
	return s.persist("append to raft's log", size, func() error { return s.BoltStore.StoreLogs(logs) })
}

// DeleteRange implements raft.LogStore.
func (s *store) DeleteRange(first, last uint64) error {
	return s.persist("cut raft's log", 0, func() error { return s.BoltStore.DeleteRange(first, last) })
}

// Set implements raft.StableStore.
func (s *store) Set(key, value []byte) error {
	return s.persist("store raft's vote", 0, func() error { return s.BoltStore.Set(key, value) })
}

// SetUint64 implements raft.StableStore.
func (s *store) SetUint64(key []byte, value uint64) error {
	return s.persist("store raft's term", 0, func() error { return s.BoltStore.SetUint64(key, value) })
}
