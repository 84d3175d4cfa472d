package cluster

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"time"
)

const (
	// strangerTime is how long one that was kept out is told of.
	strangerTime = time.Minute
	maxStrangers = 16
	farewellTime = time.Second // for a stranger to read why
)

// What is wrong between two nodes that do not share a secret, said on both sides.
const (
	hasOtherSecret = "it has another secret than this node (cluster.secret_file)"
	hasNoSecret    = "it has no secret, and this node has one (cluster.secret_file)"
	hasASecret     = "it has a secret, and this node has none (cluster.secret_file)"
)

// alertNoSecret is a TLS record with the fatal alert "insufficient security": how a
// node without a secret answers one that has one.
var alertNoSecret = []byte{21, 3, 3, 0, 2, 2, byte(alertInsufficientSecurity)}

const (
	alertBadCertificate       tls.AlertError = 42
	alertUnknownAuthority     tls.AlertError = 48
	alertInsufficientSecurity tls.AlertError = 71
)

// A stranger is who was kept out because it does not share this node's secret.
type stranger struct {
	reason string
	at     time.Time
}

// keepOut notes who is kept out and why.
func (p *port) keepOut(peer, reason string) {
	p.complain(peer, reason)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.strangers[peer]; !known && len(p.strangers) >= maxStrangers {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(p.strangers)), func(a, b string) int {
			return p.strangers[a].at.Compare(p.strangers[b].at)
		})
		delete(p.strangers, oldest)
	}
	p.strangers[peer] = stranger{reason, time.Now()}
}

// keptOut returns who was kept out lately, and why, in words and sorted.
func (p *port) keptOut() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.strangers, func(_ string, s stranger) bool { return time.Since(s.at) > strangerTime })
	var words []string
	for peer, s := range p.strangers {
		words = append(words, peer+": "+s.reason)
	}
	slices.SortFunc(words, cmp.Compare)
	return words
}

// handshakeReason says what is wrong when a TLS handshake with a peer fails, or the
// first message after it. Stranger is false for what is nobody's fault.
func handshakeReason(err error) (reason string, stranger bool) {
	var record tls.RecordHeaderError
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &record) && string(record.RecordHeader[:]) == magic[:len(record.RecordHeader)], isAlert(err, alertInsufficientSecurity):
		return hasNoSecret, true
	case errors.As(err, &verification), errors.As(err, &authority), isAlert(err, alertBadCertificate), isAlert(err, alertUnknownAuthority):
		return hasOtherSecret, true
	}
	return "TLS handshake: " + plain(err), false
}

// isAlert reports whether err is that alert of the peer. crypto/tls has no other way
// to tell alerts apart than their words.
func isAlert(err error, alert tls.AlertError) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == alert.Error()
}

// isClientHello reports whether a connection that begins with head begins TLS.
func isClientHello(head []byte) bool { return len(head) > 1 && head[0] == 22 && head[1] == 3 }

// farewell sends a last message. What the peer still sends is read, for a connection
// that is closed before is reset, and the message lost.
func farewell(conn net.Conn, message []byte) {
	conn.SetDeadline(time.Now().Add(farewellTime))
	if _, err := conn.Write(message); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 64<<10)) // until it closes
	}
}

// A tlsConn closes without a farewell, which could wait for a peer that does not read.
// Each message tells its length, so that nobody can cut one short unnoticed.
type tlsConn struct{ *tls.Conn }

func (c tlsConn) Close() error { return c.NetConn().Close() }
