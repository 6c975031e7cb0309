package config

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"time"
)

// TLS is how a port is served: files in PEM, a relative one relative to the configuration's folder.
type TLS struct {
	Cert string `json:"cert"` // and what leads to its root
	Key  string `json:"key"`
	// ClientCA has the roots of which one must have signed a client's certificate; empty asks for
	// none.
	ClientCA string `json:"client_ca,omitempty"`

	server *tls.Config
}

// Server is the port's side of TLS, with what the files held when the configuration was loaded.
func (t *TLS) Server() *tls.Config { return t.server }

// Ends is until when the certificate holds.
func (t *TLS) Ends() time.Time { return t.server.Certificates[0].Leaf.NotAfter }

func (d *decoder) checkTLS(path string, t *TLS) {
	if t == nil {
		return
	}
	t.server = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	cert, ok := d.pem(path+".cert", t.Cert)
	key, also := d.pem(path+".key", t.Key)
	if ok && also {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			d.find(path, "cert and key cannot be used: %v", err)
		}
		t.server.Certificates = []tls.Certificate{pair}
	}
	if _, given := d.positions[path+".client_ca"]; given {
		t.server.ClientAuth = tls.RequireAndVerifyClientCert
		t.server.ClientCAs, _ = d.certificates(path+".client_ca", t.ClientCA)
	}
}

// certificates reads a file of certificates that are trusted, and returns its content too.
func (d *decoder) certificates(path, name string) (*x509.CertPool, []byte) {
	roots := x509.NewCertPool()
	pem, ok := d.pem(path, name)
	if ok && !roots.AppendCertsFromPEM(pem) {
		d.find(path, "must name a file of certificates in PEM")
	}
	return roots, pem
}

// pem reads the file that path names.
func (d *decoder) pem(path, name string) (content []byte, ok bool) {
	switch {
	case d.refused(path):
		return nil, false
	case name == "":
		d.find(path, "must name a file in PEM")
		return nil, false
	}
	content, err := d.readFile(name)
	if err = cmp.Or(err, d.putIn(len(content))); err != nil {
		d.find(path, "%v", err)
	}
	return content, err == nil
}
