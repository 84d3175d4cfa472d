// Package secret derives, from the secret that the nodes of a cluster share, what they
// prove themselves to one another with, and what they encrypt with.
package secret

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// MinLength of a secret, in bytes.
	MinLength = 32
	// GossipKeyLength is that of AES-256, in bytes.
	GossipKeyLength = 32

	maxFile    = 4 << 10
	maxSecrets = 2
)

// A Secret is what a cluster's nodes share: one secret, or two while it is being
// replaced. The first is used, both are accepted.
type Secret struct {
	secrets [][]byte
}

// Read reads the secret in the file path: one line, or two, of at least MinLength
// printable characters each. It refuses a file that others than its owner and group
// may read or write.
func Read(path string) (*Secret, error) {
	s, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("secret file %s: %w", path, err)
	}
	return s, nil
}

func read(path string) (*Secret, error) {
	info, err := os.Stat(path) // before it is opened: to open a pipe would wait
	switch {
	case err != nil:
		return nil, errors.Unwrap(err) // without the path, which is said already
	case !info.Mode().IsRegular():
		return nil, errors.New("is no regular file")
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("its mode %04o lets everybody use it; chmod 600 it, and make a new secret if anybody else may have read it", info.Mode().Perm())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, errors.Unwrap(err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("has more than %d bytes", maxFile)
	}
	return Parse(text)
}

// Parse reads a secret as Read does.
func Parse(text []byte) (*Secret, error) {
	s := &Secret{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		n := len(s.secrets) + 1
		switch {
		case n > maxSecrets:
			return nil, fmt.Errorf("has more than %d secrets; each line is one: the one that is used, and another that is accepted", maxSecrets)
		case bytes.ContainsFunc(line, func(r rune) bool { return r < '!' || r > '~' }):
			return nil, fmt.Errorf("secret %d has other than printable ASCII characters; make one with: head -c 32 /dev/urandom | base64", n)
		case len(line) < MinLength:
			return nil, fmt.Errorf("secret %d has %d characters, and needs %d at least; make one with: head -c 32 /dev/urandom | base64", n, len(line), MinLength)
		}
		s.secrets = append(s.secrets, bytes.Clone(line))
	}
	if len(s.secrets) == 0 {
		return nil, errors.New("is empty")
	}
	return s, nil
}

// GossipKeys returns the keys of GossipKeyLength bytes for gossip, the one that is
// used first.
func (s *Secret) GossipKeys() ([][]byte, error) {
	return s.derive("ipvs-ha 1 gossip", GossipKeyLength)
}

// derive returns the key of each secret for a purpose.
func (s *Secret) derive(purpose string, length int) ([][]byte, error) {
	var keys [][]byte
	for _, secret := range s.secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, purpose, length)
		if err != nil {
			return nil, fmt.Errorf("derive a key from the secret: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
