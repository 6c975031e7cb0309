package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/mock"
)

// TestTLSOnBothPorts: with certificates of clients asked for on the data port, renewed while it
// serves, and a client's leaving noticed.
func TestTLSOnBothPorts(t *testing.T) {
	t.Parallel()
	ca := upstreamtest.NewAuthority(t)
	hang := upstreamtest.NewRawTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Pair("up.test")}},
		func(conn net.Conn, _ *upstreamtest.Recorded) { _, _ = io.Copy(io.Discard, conn); conn.Close() })
	dir := t.TempDir()
	cert, key := ca.Issue(dir, "first.test")
	text := settings(dir, provider(t, &mock.Provider{Chunks: 3}), fmt.Sprintf("tls: {cert: cert.pem, key: key.pem, client_ca: %s}\n", ca.File))
	text = strings.Replace(text, "admin: {", fmt.Sprintf("admin: {tls: {cert: %s, key: %s}, ", cert, key), 1)
	text = strings.Replace(text, "upstreams: {", fmt.Sprintf(`upstreams: {hang: {base_url: "https://%s/v1", ca: %s}, `, hang.Address(), ca.File), 1)
	text = strings.Replace(text, "models: {", `models: {hang: {targets: [{upstream: hang}]}, `, 1)
	n := beginIn(t, dir, text)

	client := func(certs ...tls.Certificate) *http.Client {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Roots, Certificates: certs}, DisableKeepAlives: true}
		return &http.Client{Transport: transport}
	}
	ask := func(c *http.Client, method, url, auth, body string) (string, error) {
		req, _ := http.NewRequest(method, strings.Replace(url, "http:", "https:", 1), strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+auth)
		resp, err := c.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	text, err := ask(client(), "POST", n.admin+"/api/keys", adminToken, `{"name":"x"}`)
	var made struct{ Key string }
	if err != nil || json.Unmarshal([]byte(text), &made) != nil {
		t.Fatal(text, err)
	}
	secret := made.Key
	if _, err := ask(client(), "POST", n.data+"/v1/chat/completions", secret, `{"model":"demo"}`); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a client's certificate: %v", err)
	}
	stranger := upstreamtest.NewAuthority(t)
	if _, err := ask(client(stranger.Pair("client.test")), "POST", n.data+"/v1/chat/completions", secret, `{"model":"demo"}`); err == nil {
		t.Error("a stranger's certificate was taken")
	}
	known := ca.Pair("client.test")
	got, err := ask(client(known), "POST", n.data+"/v1/chat/completions", secret, `{"model":"demo","stream":true}`)
	if err != nil || !strings.HasSuffix(got, "data: [DONE]\n\n") {
		t.Errorf("%q %v", got, err)
	}

	// The client leaves.
	conn, err := tls.Dial("tcp", strings.TrimPrefix(n.data, "http://"), &tls.Config{RootCAs: ca.Roots, Certificates: []tls.Certificate{known}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 16\r\n\r\n{\"model\":\"hang\"}", secret)
	within(t, 10*time.Second, "the request is upstream", func() bool { return len(hang.Requests()) > 0 })
	conn.Close()
	<-hang.Closed()

	// The certificate is renewed.
	serves := func(address, name string) bool {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(address, "http://"), &tls.Config{RootCAs: ca.Roots})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName == name
	}
	ca.Issue(dir, "second.test")
	within(t, 10*time.Second, "the new certificate is served", func() bool {
		return serves(n.data, "second.test") && serves(n.admin, "second.test")
	})
	metrics, err := ask(client(), "GET", n.admin+"/metrics", adminToken, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{"data", "admin"} {
		ends, _ := strconv.ParseFloat(series(metrics, `\nsluice_certificate_expiry_timestamp_seconds\{port="`+port+`"\} (\S+)`)[0], 64)
		if left := time.Until(time.Unix(int64(ends), 0)); left > time.Hour || left < 50*time.Minute {
			t.Errorf("the certificate of the %s port holds for %v", port, left)
		}
	}
	// A reload that takes tls away is for the next start.
	write(t, n.path, settings(dir, "http://127.0.0.1:1/v1", ""))
	within(t, 10*time.Second, "it says so", func() bool {
		return strings.Contains(n.log.String(), `"fields":"tls, admin.tls"`)
	})
	if !serves(n.data, "second.test") {
		t.Error("TLS has gone")
	}
	if log := n.log.String(); strings.Contains(log, "PRIVATE") || strings.Contains(log, "without TLS") {
		t.Errorf("%s", log)
	}
}
