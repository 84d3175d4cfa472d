package secret

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	one   = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	two   = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
	three = "enl4d3Z1dHNycXBvbm1sa2ppaGdmZWRjYmF6eXh3dnU="
)

func parse(t *testing.T, lines ...string) *Secret {
	t.Helper()
	s, err := Parse([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDerivedKeysStay: nodes of two versions must understand each other.
func TestDerivedKeysStay(t *testing.T) {
	s := parse(t, one, two)
	gossip, err := s.GossipKeys()
	if err != nil {
		t.Fatal(err)
	}
	seeds, err := s.derive("ipvs-ha 1 certificate authority", ed25519.SeedSize)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"gossip, first secret":    {gossip[0], "1679f9307d45fc87178f82d2e44e928deb142c4d75765c71faddfebbd03db903"},
		"gossip, second secret":   {gossip[1], "972147eeeb99f2a4bab59c26afe87b518804f1f50f0719aecf3ad8e73735d997"},
		"authority, first secret": {seeds[0], "cf60769016369cabf3414d4056fad9386b2d0c7800e4e7dd4c62a942bdd63440"},
	} {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// handshake lets a client and a server meet, and returns what each makes of it.
func handshake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		secure := tls.Server(conn, server)
		_, err = secure.Read(make([]byte, 1))
		if err == nil {
			_, err = secure.Write([]byte{1})
		}
		done <- err
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err == nil {
		defer conn.Close()
		_, err = conn.Write([]byte{1})
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // a server's refusal comes after the client's handshake
		}
	}
	return err, <-done
}

func TestTLS(t *testing.T) {
	for name, tt := range map[string]struct {
		client, server []string
		ok             bool
	}{
		"same":                  {[]string{one}, []string{one}, true},
		"other":                 {[]string{one}, []string{two}, false},
		"new one is accepted":   {[]string{one}, []string{one, two}, true},
		"new one is used":       {[]string{two, one}, []string{one, two}, true},
		"old one is gone there": {[]string{two, one}, []string{two}, true},
		"too early":             {[]string{two, one}, []string{one}, false},
		"nothing in common":     {[]string{one, two}, []string{three}, false},
	} {
		client, err := parse(t, tt.client...).TLS()
		if err != nil {
			t.Fatal(err)
		}
		server, err := parse(t, tt.server...).TLS()
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range [][2]*tls.Config{{client, server}, {server, client}} {
			clientErr, serverErr := handshake(t, way[0], way[1])
			if (clientErr == nil && serverErr == nil) != tt.ok {
				t.Errorf("%s: client %v, server %v; want it to pass: %t", name, clientErr, serverErr, tt.ok)
			}
		}
	}
}

// TestTLSWithoutTheSecret: what somebody can make who knows all but the secret.
func TestTLSWithoutTheSecret(t *testing.T) {
	server, err := parse(t, one).TLS()
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := newAuthority(key)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := newCertificate(authority, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*tls.Config){
		"own authority": func(c *tls.Config) { c.Certificates = []tls.Certificate{forged} },
		"none":          func(*tls.Config) {},
		"TLS 1.2": func(c *tls.Config) {
			c.Certificates, c.MinVersion, c.MaxVersion = []tls.Certificate{forged}, tls.VersionTLS12, tls.VersionTLS12
		},
	} {
		client := &tls.Config{InsecureSkipVerify: true}
		change(client)
		if _, err := handshake(t, client, server); err == nil {
			t.Errorf("%s: the server accepts", name)
		}
	}
	// And as a server.
	client := server.Clone()
	var authorityErr x509.UnknownAuthorityError
	if err, _ := handshake(t, client, &tls.Config{Certificates: []tls.Certificate{forged}}); !errors.As(err, &authorityErr) {
		t.Errorf("a forged server: %v", err)
	}
}

// TestTLSNeedsNoClock: certificates made by nodes whose clocks are far apart.
func TestTLSNeedsNoClock(t *testing.T) {
	config, err := parse(t, one).TLS()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if at := config.Time(); leaf.NotBefore.After(at) || leaf.NotAfter.Before(at) || time.Since(at) < 24*time.Hour {
		t.Errorf("a certificate from %s to %s is judged at %s", leaf.NotBefore, leaf.NotAfter, at)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	tests := []struct {
		name, text string
		mode       os.FileMode
		says       string // "" = is read
	}{
		{"one", one + "\n", 0o600, ""},
		{"for a group", one, 0o640, ""},
		{"two", " " + one + "\r\n\n" + two + "\n", 0o400, ""},
		{"readable by all", one, 0o644, "mode 0644 lets everybody use it; chmod 600"},
		{"writable by all", one, 0o602, "mode 0602 lets everybody use it"},
		{"short", one[:31], 0o600, "secret 1 has 31 characters, and needs 32"},
		{"second short", one + "\nx", 0o600, "secret 2 has 1 characters"},
		{"binary", one + "\x00", 0o600, "other than printable ASCII"},
		{"three", one + "\n" + two + "\n" + three, 0o600, "more than 2 secrets"},
		{"empty", " \n", 0o600, "is empty"},
		{"huge", strings.Repeat("x", maxFile+1), 0o600, "more than 4096 bytes"},
	}
	for _, tt := range tests {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Read(path); !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), path) != 1 {
		t.Errorf("missing: %v", err)
	}
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "is no regular file") {
		t.Errorf("a directory: %v", err)
	}
}
