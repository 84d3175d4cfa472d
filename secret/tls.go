package secret

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// serverName is whom every node takes the other for: a member, whichever.
const serverName = "member.ipvs-ha"

// Certificates are good at any time: a host whose clock is wrong must not be kept out,
// and who holds the secret can make new ones anyway.
var (
	notBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	now       = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// TLS returns mutual TLS 1.3 for both ends of a connection between two nodes that
// have the secret. Each secret is the key of an authority that has signed nothing but
// certificates of nodes; this node's, under the first, is made here and lives in
// memory only.
func (s *Secret) TLS() (*tls.Config, error) {
	seeds, err := s.derive("ipvs-ha 1 certificate authority", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	var own tls.Certificate
	for i, seed := range seeds {
		key := ed25519.NewKeyFromSeed(seed)
		authority, err := newAuthority(key)
		if err != nil {
			return nil, fmt.Errorf("certificate authority of the secret: %w", err)
		}
		pool.AddCert(authority)
		if i > 0 {
			continue
		}
		if own, err = newCertificate(authority, key); err != nil {
			return nil, fmt.Errorf("certificate of this node: %w", err)
		}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       func() time.Time { return now },
		ServerName: serverName,
		RootCAs:    pool,
		ClientCAs:  pool,
		ClientAuth: tls.RequireAndVerifyClientCert,
		// Presented whatever authorities the other names: it shall say why it refuses.
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil },
		Certificates:           []tls.Certificate{own},
		SessionTicketsDisabled: true, // connections are kept; a ticket would outlive a secret
	}, nil
}

// newAuthority returns the certificate of the authority with that key, the same on
// each node.
func newAuthority(key ed25519.PrivateKey) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ipvs-ha cluster"},
		NotBefore: notBefore, NotAfter: notAfter, KeyUsage: x509.KeyUsageCertSign,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newCertificate returns a certificate with a key of its own.
func newCertificate(authority *x509.Certificate, key ed25519.PrivateKey) (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: serverName}, DNSNames: []string{serverName},
		NotBefore: notBefore, NotAfter: notAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, public, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}
