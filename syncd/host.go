package syncd

import (
	"fmt"
	"net"
	"os"
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
