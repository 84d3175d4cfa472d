package syncd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// Host are the network interfaces of this host.
type Host struct{}

// Index implements Interfaces.
func (Host) Index(name string) (int, error) {
	all, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list the network interfaces: %w", err)
	}
	for _, i := range all {
		if i.Name == name {
			return i.Index, nil
		}
	}
	return 0, fmt.Errorf("interface %s: %w", name, os.ErrNotExist)
}

// BackupOnly implements Interfaces. What cannot be read counts as set, but a kernel
// without the sysctl does not have it.
func (Host) BackupOnly() bool {
	value, err := os.ReadFile("/proc/sys/net/ipv4/vs/backup_only")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	return err != nil || strings.TrimSpace(string(value)) != "0"
}
