package vip

import (
	"bytes"
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
)

const (
	recordName = "vips"
	recordHead = "ipvs-ha vips 1"
)

// readRecord returns the addresses in the record in dir. A damaged record is set
// aside, and the warning says so; what is not known to be ours must not be removed.
func readRecord(dir string) (claims map[Address]bool, warning, err error) {
	path := filepath.Join(dir, recordName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[Address]bool{}, nil, nil
	} else if err != nil {
		return nil, nil, fmt.Errorf("read the record of addresses: %w", err)
	}
	head, _, _ := strings.Cut(string(data), "\n")
	if head != recordHead && strings.HasPrefix(head, "ipvs-ha vips ") {
		return nil, nil, fmt.Errorf("the record of addresses %s has format %q, this release knows %q: upgrade it", path, head, recordHead)
	}
	claims, damage := parseRecord(data)
	if damage == nil {
		return claims, nil, nil
	}
	aside := path + ".damaged"
	if err := os.Rename(path, aside); err != nil {
		return nil, nil, fmt.Errorf("set the damaged record of addresses aside: %w", err)
	}
	warning = fmt.Errorf("the record of addresses was damaged (%w) and is kept as %s; addresses that this node added before end by themselves within %s", damage, aside, addressLife)
	return map[Address]bool{}, warning, nil
}

// parseRecord reads what encodeRecord wrote.
func parseRecord(data []byte) (map[Address]bool, error) {
	end := bytes.LastIndexByte(bytes.TrimSuffix(data, []byte("\n")), '\n') + 1
	if want := sumLine(data[:end]); string(data[end:]) != want {
		return nil, errors.New("its checksum is wrong")
	}
	claims := map[Address]bool{}
	for i, line := range strings.Split(strings.TrimSuffix(string(data[:end]), "\n"), "\n") {
		if i == 0 {
			if line != recordHead {
				return nil, errors.New("its first line is not that of a record of addresses")
			}
			continue
		}
		a, err := ParseAddress(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		claims[a] = true
	}
	return claims, nil
}

// encodeRecord writes the head, one line for each address and the checksum of both.
func encodeRecord(claims map[Address]bool) []byte {
	var b bytes.Buffer
	b.WriteString(recordHead + "\n")
	for _, a := range slices.SortedFunc(maps.Keys(claims), Address.compare) {
		b.WriteString(a.String() + "\n")
	}
	b.WriteString(sumLine(b.Bytes()))
	return b.Bytes()
}

func sumLine(data []byte) string { return fmt.Sprintf("%08x\n", crc32.ChecksumIEEE(data)) }

// writeRecord replaces the record in dir. When it returns nil, claims are on disk.
func writeRecord(dir string, claims map[Address]bool) error {
	path := filepath.Join(dir, recordName)
	if err := durable.Replace(path, encodeRecord(claims)); err != nil {
		return fmt.Errorf("write the record of addresses: %w", err)
	}
	return nil
}
