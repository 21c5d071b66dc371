package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity is longer than a cluster lives.
const validity = 30 * 24 * time.Hour

// pki is the cluster's certificate authority. Its files lie in dir.
type pki struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// newPKI makes the authority, and the key pair that signs service accounts'
// tokens (sa.key, sa.pub).
func newPKI(dir string) (*pki, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "lab"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	p := &pki{dir: dir, key: key}
	der, err := p.sign(template, template, key)
	if err != nil {
		return nil, err
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return p, errors.Join(p.write("ca.crt", "CERTIFICATE", der), p.serviceAccountKeys())
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func (p *pki) sign(template, parent *x509.Certificate, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(validity)
	return x509.CreateCertificate(rand.Reader, template, parent, key.Public(), p.key)
}

func (p *pki) serviceAccountKeys() error {
	key, err := newKey()
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return errors.Join(p.writeKey("sa.key", key), p.write("sa.pub", "PUBLIC KEY", public))
}

// issue makes a certificate for both ends of a connection: name.crt, name.key.
func (p *pki) issue(name string, subject pkix.Name, names []string, addresses ...net.IP) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	der, err := p.sign(&x509.Certificate{
		Subject: subject, DNSNames: names, IPAddresses: addresses, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, p.cert, key)
	if err != nil {
		return err
	}
	return errors.Join(p.write(name+".crt", "CERTIFICATE", der), p.writeKey(name+".key", key))
}

// kubeconfig issues a certificate for a user and writes name.kubeconfig, which
// holds it: the file works on every machine.
func (p *pki) kubeconfig(name, user string, groups ...string) error {
	if err := p.issue(name, pkix.Name{CommonName: user, Organization: groups}, nil); err != nil {
		return err
	}
	var data [3]string
	for i, file := range []string{"ca.crt", name + ".crt", name + ".key"} {
		content, err := os.ReadFile(p.path(file))
		if err != nil {
			return err
		}
		data[i] = base64.StdEncoding.EncodeToString(content)
	}
	return os.WriteFile(p.path(name+".kubeconfig"), fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- {name: lab, cluster: {server: "https://%s", certificate-authority-data: %s}}
users:
- {name: %s, user: {client-certificate-data: %s, client-key-data: %s}}
contexts:
- {name: lab, context: {cluster: lab, user: %[3]s}}
current-context: lab
`, apiServer, data[0], name, data[1], data[2]), 0o600)
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) writeKey(name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return p.write(name, "PRIVATE KEY", der)
}

func (p *pki) write(name, kind string, der []byte) error {
	return os.WriteFile(p.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
