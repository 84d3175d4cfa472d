package cluster

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipvs-ha/ipvs-ha/secret"
)

const (
	ourSecret   = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	otherSecret = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
)

func share(t *testing.T, lines ...string) *secret.Secret {
	t.Helper()
	s, err := secret.Parse([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSecretIsShared(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1) // the others are found by gossip
	var nodes []*running
	for i := range 3 {
		cfg := b.config(i+1, 3)
		cfg.GossipPort, cfg.Secret = b.port+1, share(t, ourSecret)
		nodes = append(nodes, b.run(cfg))
	}
	formed(t, nodes...)
	propose(t, nodes[1], "in secret")
	if got := nodes[0].gossip.addresses(); len(got) != 3 {
		t.Errorf("%d gossip", len(got))
	}
	if words := nodes[0].State().KeptOut; len(words) > 0 {
		t.Errorf("kept out: %q", words)
	}
}

// TestStrangersAreKeptOut: both sides say what is wrong.
func TestStrangersAreKeptOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		ours, theirs   *secret.Secret
		saysUs, saysIt string
	}{
		{"other secret", share(t, ourSecret), share(t, otherSecret), hasOtherSecret, hasOtherSecret},
		{"none there", share(t, ourSecret), nil, hasNoSecret, hasASecret},
		{"none here", nil, share(t, ourSecret), hasASecret, hasNoSecret},
		{"not yet accepted", share(t, ourSecret), share(t, otherSecret, ourSecret), hasOtherSecret, hasOtherSecret},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1)
			var ourLog, itsLog lockedBuffer
			cfg := b.config(1, 1)
			cfg.Secret, cfg.Logger, cfg.GossipPort = tt.ours, slog.New(slog.NewTextHandler(&ourLog, nil)), b.port+1
			member := b.run(cfg)
			formed(t, member)
			cfg = b.config(2, 0)
			cfg.Secret, cfg.Logger, cfg.GossipPort = tt.theirs, slog.New(slog.NewTextHandler(&itsLog, nil)), b.port+1
			stranger := b.run(cfg)
			eventually(t, "words of the stranger", func() bool {
				return strings.Contains(stranger.State().Waiting, "kept out: 127.0.0.1: "+tt.saysIt)
			}, stranger)
			if got := stranger.State().Waiting; !strings.HasPrefix(got, "no cluster answers") {
				t.Errorf("it waits for: %s", got)
			}
			eventually(t, "words of the member", func() bool {
				return slices.Contains(member.State().KeptOut, "127.0.0.2: "+tt.saysUs)
			}, member)
			for name, log := range map[string]*lockedBuffer{tt.saysUs: &ourLog, tt.saysIt: &itsLog} {
				if !strings.Contains(log.String(), name) {
					t.Errorf("no %q in the log:\n%s", name, log.String())
				}
			}
			if n := len(member.gossip.addresses()); n != 1 {
				t.Errorf("%d gossip", n)
			}
		})
	}
}

// TestSecretIsReplaced: one node at a time, in three rounds.
func TestSecretIsReplaced(t *testing.T) {
	t.Parallel()
	_, nodes := three(t, func(c *Config) { c.Secret = share(t, ourSecret) })
	b := &bed{t: t, port: nodes[0].cfg.Port, join: nodes[0].cfg.Join}
	for _, lines := range [][]string{{ourSecret, otherSecret}, {otherSecret, ourSecret}, {otherSecret}} {
		for i, r := range nodes {
			r.stop()
			cfg := r.cfg
			cfg.Secret = share(t, lines...)
			nodes[i] = b.run(cfg)
			formed(t, nodes...)
		}
	}
	propose(t, nodes[0], "under the new one")
}

// TestLeaseNeedsTheSecret: whoever knows all names and ids, but not the secret, gets
// no promise, and ends none.
func TestLeaseNeedsTheSecret(t *testing.T) {
	t.Parallel()
	_, _, nodes := leased(t, func(c *Config) { c.Secret = share(t, ourSecret) })
	leader, voter := nodes[0], nodes[1]
	self := preface{
		Cluster: "lb", ClusterID: voter.identity.get().ClusterID, ID: nodes[2].ID(), Address: nodes[2].cfg.advertised(),
		To: voter.ID(), Stream: streamRequest,
	}
	ask := func(conn net.Conn) error {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		var answer prefaceAnswer
		if err := errors.Join(writePreface(conn, self), readPreface(conn, &answer)); err != nil {
			return err
		}
		if answer.Refused != "" {
			return errors.New(answer.Refused)
		}
		body, err := json.Marshal(leaseRequest{Term: voter.State().Term + 1, Sent: voter.cfg.Now(), Length: leaseProfile.Lease})
		if err != nil {
			return err
		}
		if err := writeMessage(conn, requestHead{Method: methodLease, Timeout: 1000}, body, maxRequest); err != nil {
			return err
		}
		_, err = readMessage(conn, &answerHead{}, maxAnswer)
		return err
	}
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", voter.cfg.advertised())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	forged, err := share(t, otherSecret).TLS()
	if err != nil {
		t.Fatal(err)
	}
	forged.InsecureSkipVerify = true
	for name, conn := range map[string]net.Conn{"plain": dial(), "forged": tls.Client(dial(), forged), "anonymous": tls.Client(dial(), &tls.Config{InsecureSkipVerify: true})} {
		if err := ask(conn); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	if to, _ := voter.guard.promised(); to != leader.ID() && to != "" {
		t.Errorf("promised to %s", to)
	}
	// The same with the secret is answered: the test asks rightly.
	good, err := share(t, ourSecret).TLS()
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(tls.Client(dial(), good)); err != nil {
		t.Errorf("with the secret: %v", err)
	}
}
