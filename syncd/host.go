package syncd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Host are the network interfaces of this host.
type Host struct{}

// Index implements Interfaces. Unlike package net it does not list all interfaces: the
// kernel's lock for that is held while somebody adds hundreds of addresses.
func (Host) Index(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil { // longer than any name can be
		return 0, fmt.Errorf("interface %s: %w", name, os.ErrNotExist)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	if errors.Is(err, unix.ENODEV) {
		err = os.ErrNotExist
	}
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return int(request.Uint32()), nil
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
