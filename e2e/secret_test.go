package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// shareSecret writes a secret and returns the key of the configuration that names it.
func (l *lab) shareSecret(name, secret string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return ", secret_file: " + path
}

// TestSecret: the nodes that share it are a cluster that fails over; one that has
// another or none is kept out, and both sides say why.
func TestSecret(t *testing.T) {
	l, p := vipLab(t, "", slowly, func(l *lab) string {
		return l.shareSecret("secret", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	})
	former := p.awaitOwner(l, "nobody")
	l.node(former).kill(syscall.SIGKILL)
	next := l.node(p.awaitOwner(l, former))
	p.check("kill -9")

	ours := l.node(former).cluster
	for _, tt := range []struct{ theirs, saysIt, saysUs string }{
		{l.shareSecret("other", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="), "it has another secret than this node", "it has another secret than this node"},
		{"", "it has a secret, and this node has none", "it has no secret, and this node has one"},
	} {
		stranger := l.node(former)
		stranger.cluster = slowly(l) + tt.theirs
		stranger.start()
		for n, want := range map[*node]string{
			stranger: next.address + ": " + tt.saysIt,
			next:     stranger.address + ": " + tt.saysUs,
		} {
			l.await("words of "+n.name, func() error {
				out, _ := n.ha("status")
				if !strings.Contains(out, want) {
					return fmt.Errorf("no %q in\n%s", want, out)
				}
				return nil
			})
		}
		stranger.kill(syscall.SIGTERM)
	}
	l.node(former).cluster = ours
	l.node(former).start()
	l.awaitVoters(next, "d1", "d2", "d3")
	l.awaitLeader()
	p.check("strangers")

	// A secret that others can read is refused before anything starts.
	if err := os.Chmod(filepath.Join(l.dir, "secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(os.Getenv("IPVS_HA_BIN"), "agent", "--check", "--config", next.dir+".yaml").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "mode 0644") {
		t.Errorf("%v: %s", err, out)
	}
}
