package reconcile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipvs-ha/ipvs-ha/durable"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

const (
	recordName = "ownership"
	recordHead = "ipvs-ha ownership 1"

	// maxAppend bounds the lines that are appended at once. More are written as a
	// new file: a crash may tear an append that spans pages in its middle.
	maxAppend = 32
)

// record is the file that says which services of the kernel are ours, and which
// sync daemons. It is a log of lines, each with a checksum; when most of them are
// outdated it is written anew. It is for one goroutine.
type record struct {
	path   string
	file   *os.File // open for appending; nil: the next write makes a new file
	lines  int      // in file
	stale  bool     // memory has what could not be written
	owned  map[ipvs.ServiceKey]bool
	starts syncd.Starts
}

// openRecord reads the record in dir. A damaged one is set aside, and the warning
// says so; the record is empty then, because what is not known to be ours must not
// be deleted.
func openRecord(dir string) (r *record, warning, err error) {
	r = &record{path: filepath.Join(dir, recordName), owned: map[ipvs.ServiceKey]bool{}, starts: syncd.Starts{}}
	data, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil, nil
	} else if err != nil {
		return nil, nil, fmt.Errorf("read the ownership record: %w", err)
	}
	head, lines, ok := strings.Cut(string(data), "\n")
	if ok && head != recordHead && strings.HasPrefix(head, "ipvs-ha ownership ") {
		return nil, nil, fmt.Errorf("the ownership record %s has format %q, this release knows %q: upgrade it", r.path, head, recordHead)
	}
	if ok && head == recordHead {
		err = r.load(lines)
	} else {
		err = errors.New("its first line is not that of an ownership record")
	}
	if err == nil {
		return r, nil, nil
	}
	aside := r.path + ".damaged"
	warning = fmt.Errorf("the ownership record was damaged (%w) and is kept as %s; services that left the table while this node was away are now foreign to it: delete them by hand", err, aside)
	if err := os.Rename(r.path, aside); err != nil {
		return nil, nil, fmt.Errorf("set the damaged ownership record aside: %w", err)
	}
	r.owned, r.starts = map[ipvs.ServiceKey]bool{}, syncd.Starts{}
	return r, warning, nil
}

// load reads the lines behind the head. Bad lines at the end were being written
// when the host went down, and nothing followed from them yet; a bad line before a
// good one is damage.
func (r *record) load(lines string) error {
	bad := 0
	for number := 2; lines != ""; number++ {
		var line string
		var whole bool
		line, lines, whole = strings.Cut(lines, "\n")
		err := errors.New("it is cut off")
		if whole {
			err = r.loadLine(line)
		}
		switch {
		case err != nil && bad == 0:
			bad = number
		case err == nil && bad != 0:
			return fmt.Errorf("line %d is not readable", bad)
		}
	}
	return nil
}

func (r *record) loadLine(line string) error {
	sum, text, _ := strings.Cut(line, " ")
	if sum != checksum(text) {
		return errors.New("wrong checksum")
	}
	verb, object, _ := strings.Cut(text, " ")
	switch verb {
	case "own", "disown":
		key, err := ipvs.ParseServiceKey(object)
		if err != nil {
			return err
		}
		if verb == "own" {
			r.owned[key] = true
		} else {
			delete(r.owned, key)
		}
		return nil
	case "daemons":
		starts := syncd.Starts{}
		if err := json.Unmarshal([]byte(object), &starts); err != nil {
			return err
		}
		r.starts = starts
		return nil
	}
	return fmt.Errorf("unknown word %q", verb)
}

func checksum(text string) string {
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text)))
}

// claim records keys as owned. When it returns nil they are on disk; otherwise none
// counts as owned that did not before.
func (r *record) claim(keys []ipvs.ServiceKey) error {
	var added []ipvs.ServiceKey
	var lines []string
	for _, k := range keys {
		if !r.owned[k] {
			r.owned[k] = true
			added = append(added, k)
			lines = append(lines, "own "+k.String())
		}
	}
	if err := r.write(lines, true); err != nil {
		for _, k := range added {
			delete(r.owned, k)
		}
		return err
	}
	return nil
}

// release records that keys are not owned any more. It does not wait for the disk:
// a key that reappears after a crash is found missing in the kernel and released
// again.
func (r *record) release(keys []ipvs.ServiceKey) error {
	var lines []string
	for _, k := range keys {
		if r.owned[k] {
			delete(r.owned, k)
			lines = append(lines, "disown "+k.String())
		}
	}
	return r.write(lines, false)
}

// saveStarts records the sync daemons.
func (r *record) saveStarts(starts syncd.Starts) error {
	r.starts = starts
	line, err := startsLine(starts)
	if err != nil {
		return err
	}
	return r.write([]string{line}, true)
}

func startsLine(starts syncd.Starts) (string, error) {
	b, err := json.Marshal(starts)
	if err != nil {
		return "", fmt.Errorf("encode the sync daemons: %w", err)
	}
	return "daemons " + string(b), nil
}

// write appends lines, or writes the record anew from memory.
func (r *record) write(lines []string, durable bool) error {
	if len(lines) == 0 {
		return nil
	}
	if r.file == nil || len(lines) > maxAppend || r.lines > 1000+2*len(r.owned) {
		return r.rewrite()
	}
	_, err := r.file.Write(encodeLines(lines))
	if err == nil && durable {
		err = r.file.Sync()
	}
	if err != nil {
		r.close() // what is in the file now is not known
		r.stale = true
		return fmt.Errorf("write the ownership record: %w", err)
	}
	r.lines += len(lines)
	return nil
}

// flush writes what could not be written before.
func (r *record) flush() error {
	if !r.stale {
		return nil
	}
	return r.rewrite()
}

func encodeLines(lines []string) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s\n", checksum(l), l)
	}
	return b.Bytes()
}

// rewrite replaces the file by one that holds what is in memory.
func (r *record) rewrite() error {
	r.close()
	r.stale = true
	lines := make([]string, 0, len(r.owned)+1)
	for _, k := range slices.SortedFunc(maps.Keys(r.owned), ipvs.ServiceKey.Compare) {
		lines = append(lines, "own "+k.String())
	}
	if len(r.starts) > 0 {
		line, err := startsLine(r.starts)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	err := durable.Replace(r.path, append([]byte(recordHead+"\n"), encodeLines(lines)...))
	if err != nil {
		return fmt.Errorf("write the ownership record: %w", err)
	}
	file, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("open the ownership record: %w", err)
	}
	r.file, r.lines, r.stale = file, len(lines), false
	return nil
}

func (r *record) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}
