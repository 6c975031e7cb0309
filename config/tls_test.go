package config

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

func TestTLSFiles(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	dir := t.TempDir()
	cert, key := ca.Issue(dir, "edge.test")
	text := fmt.Sprintf("tls: {cert: %s, key: %s, client_ca: %s}\n%s", cert, key, ca.File, strings.Replace(minimal, `1/v1"`, `1/v1", ca: `+ca.File, 1))
	cfg := mustParse(t, text)
	server := cfg.TLS.Server()
	if len(server.Certificates) != 1 || server.ClientAuth != tls.RequireAndVerifyClientCert || !server.ClientCAs.Equal(ca.Roots) {
		t.Errorf("%+v", server)
	}
	if roots, pem := cfg.Upstreams["up"].Roots(); !roots.Equal(ca.Roots) || len(pem) == 0 {
		t.Error("the upstream's roots are others")
	}
	ca.Issue(dir, "other.test") // writes the same files
	mismatched := strings.Replace(text, key, filepath.Join(filepath.Dir(ca.File), "key.pem"), 1)
	ca.Issue(filepath.Dir(ca.File), "third.test")
	if _, _, err := parse(t.Context(), "config.yaml", []byte(mismatched), getenv); err == nil || !strings.Contains(err.Error(), "config.yaml:1:1: tls: cert and key cannot be used: tls: private key does not match") {
		t.Errorf("a key of another certificate: %v", err)
	}
	if cfg := mustParse(t, minimal); cfg.TLS != nil || cfg.Admin.TLS != nil {
		t.Error("TLS that nobody asked for")
	}
}

// TestWatchNamedFiles: files that the configuration names are followed as it is.
func TestWatchNamedFiles(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	certs := t.TempDir()
	cert, key := ca.Issue(certs, "first.test")
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, fmt.Sprintf("tls: {cert: %s, key: %s}\n%s", cert, key, inFlightConfig(1)))
	w := watch(t, path)
	ca.Issue(certs, "second.test")
	w.want(<-w.applied, 1)
	<-w.tried
	if leaf := w.live.Status().Config.TLS.Server().Certificates[0].Leaf; leaf.Subject.CommonName != "second.test" {
		t.Errorf("it serves %s", leaf.Subject.CommonName)
	}
	write(t, key, "no key")
	if s := <-w.tried; !strings.Contains(s.Error, "cert and key cannot be used") || s.Config.TLS.Server() == nil {
		t.Errorf("status is %+v", s)
	}
	ca.Issue(certs, "third.test")
	w.want(<-w.applied, 1)
}

func TestProxyOfTheEnvironment(t *testing.T) {
	for _, test := range []struct {
		base, own string
		env       map[string]string
		want      string
	}{
		{base: "https://a.test/v1"},
		{base: "https://a.test/v1", env: map[string]string{"HTTPS_PROXY": "http://user:sesame@proxy:3128"}, want: "http://[redacted]@proxy:3128"},
		{base: "https://a.test/v1", env: map[string]string{"https_proxy": "proxy:3128", "HTTP_PROXY": "x:1"}, want: "http://proxy:3128"},
		{base: "http://a.test/v1", env: map[string]string{"HTTPS_PROXY": "x:1", "HTTP_PROXY": "socks5://proxy:1080"}, want: "socks5://proxy:1080"},
		{base: "https://a.test/v1", env: map[string]string{"HTTPS_PROXY": "proxy:3128", "NO_PROXY": "b.test,.test"}},
		{base: "https://127.0.0.1/v1", env: map[string]string{"HTTPS_PROXY": "proxy:3128"}},
		{base: "https://a.test/v1", own: `proxy: "https://own:1"`, env: map[string]string{"HTTPS_PROXY": "proxy:3128", "NO_PROXY": "*"}, want: "https://own:1"},
		{base: "https://a.test/v1", own: `proxy: "${HTTPS_PROXY:-}"`, env: map[string]string{"HTTPS_PROXY": "proxy:3128"}, want: "http://proxy:3128"},
		{base: "https://a.test/v1", own: `proxy: "${HTTPS_PROXY:-}"`},
		{base: "https://a.test/v1", env: map[string]string{"HTTPS_PROXY": "ftp://sesame"}, want: "upstreams.up: the environment's HTTPS_PROXY or HTTP_PROXY is no URL of a proxy"},
	} {
		text := fmt.Sprintf("admin: {token: 0123456789abcdef}\nupstreams: {up: {base_url: %q, %s}}\nmodels: {m: {targets: [{upstream: up}]}}\n", test.base, test.own)
		cfg, _, err := parse(t.Context(), "config.yaml", []byte(text), func(name string) (string, bool) { v, ok := test.env[name]; return v, ok })
		var got string
		if err != nil {
			got = err.Error()
		} else {
			got = cfg.Upstreams["up"].Proxy.String()
		}
		if got != test.want && (err == nil || !strings.HasSuffix(got, test.want)) || strings.Contains(got, "sesame") {
			t.Errorf("%s %s %v: %q, want %q", test.base, test.own, test.env, got, test.want)
		}
	}
}
