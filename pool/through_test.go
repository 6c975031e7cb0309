package pool

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/config"
	"sluice/internal/upstreamtest"
)

// forwarder is a forward proxy of any kind. It brings everybody to the one upstream.
type forwarder struct {
	t     *testing.T
	to    string
	used  atomic.Int64
	asked atomic.Value // the address
	wg    sync.WaitGroup
}

func (f *forwarder) relay(client net.Conn, early io.Reader) {
	f.used.Add(1)
	up, err := net.Dial("tcp", f.to)
	if err != nil {
		client.Close()
		return
	}
	f.wg.Go(func() { _, _ = io.Copy(up, early); up.Close() })
	_, _ = io.Copy(client, up)
	client.Close()
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asked.Store(r.Method + " " + r.RequestURI)
	if r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpzZXNhbWU=" {
		w.WriteHeader(407)
		return
	}
	w.WriteHeader(200)
	conn, buffered, _ := http.NewResponseController(w).Hijack()
	f.relay(conn, buffered)
}

// socks serves RFC 1928 with the user name and password of RFC 1929, as far as the test goes.
func (f *forwarder) socks(conn net.Conn) {
	r := bufio.NewReader(conn)
	some := func(n int) string { b := make([]byte, n); _, _ = io.ReadFull(r, b); return string(b) }
	one := func() int { b, _ := r.ReadByte(); return int(b) }
	one()
	some(one())
	_, _ = conn.Write([]byte{5, 2})
	one()
	if name, password := some(one()), some(one()); name != "user" || password != "sesame" {
		_, _ = conn.Write([]byte{1, 1})
		conn.Close()
		return
	}
	_, _ = conn.Write([]byte{1, 0})
	some(3)
	var host string
	if one() == 1 {
		host = net.IP(some(4)).String()
	} else {
		host = some(one())
	}
	f.asked.Store(fmt.Sprintf("CONNECT %s:%d", host, one()<<8+one()))
	_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	f.relay(conn, r)
}

// start serves the proxy and returns its URL, with the credentials in it.
func (f *forwarder) start(scheme string, ca *upstreamtest.Authority) string {
	f.t.Cleanup(f.wg.Wait)
	if scheme == "socks5" {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { ln.Close() })
		f.wg.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				f.wg.Go(func() { f.socks(conn) })
			}
		})
		return "socks5://user:sesame@" + ln.Addr().String()
	}
	server := httptest.NewUnstartedServer(f)
	if scheme == "https" {
		server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Pair("proxy.test")}}
		server.StartTLS()
	} else {
		server.Start()
	}
	f.t.Cleanup(server.Close)
	return strings.Replace(server.URL, "://", "://user:sesame@", 1)
}

func targetOf(t *testing.T, p *Pool, text string) *Target {
	t.Helper()
	s := p.Build(load(t, text))
	p.Adopt(s)
	return s.Models["m"].Targets[0]
}

// TestThroughAProxy: each kind of proxy, to an upstream with TLS and one without, whose connection
// is kept and whose certificate is of an authority of its own.
func TestThroughAProxy(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	for _, kind := range []string{"http", "https", "socks5"} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(kind+" to "+scheme, func(t *testing.T) {
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					_, _ = fmt.Fprintf(w, "%s %s %s", r.Host, r.URL, body)
				}))
				if scheme == "https" {
					server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Pair("up.test")}}
					server.StartTLS()
				} else {
					server.Start()
				}
				t.Cleanup(server.Close)
				f := &forwarder{t: t, to: server.Listener.Addr().String()}
				p := empty()
				target := targetOf(t, p, fmt.Sprintf("upstreams: {up: {base_url: %s://up.test:77/v1, proxy: %q, ca: %s}}\nmodels: {m: {targets: [{upstream: up}]}}\n",
					scheme, f.start(kind, ca), ca.File))
				t.Cleanup(p.Close)
				for range 3 {
					got, err := exchange(t, target, "hello")
					if err != nil || got != "up.test:77 /v1/completions hello" {
						t.Fatalf("%q %v", got, err)
					}
				}
				if f.used.Load() != 1 || f.asked.Load() != "CONNECT up.test:77" {
					t.Errorf("%d connections through the proxy, asked %v", f.used.Load(), f.asked.Load())
				}
			})
		}
	}
}

// TestProxyThatDoesNotHelp: an attempt ends within timeouts.connect, and its error says why.
func TestProxyThatDoesNotHelp(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		scheme string
		want   Cause
		says   string
	}{
		"refuses":      {"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "http", ConnectFailed, "the proxy answered 407"},
		"no HTTP":      {"hello\r\n\r\n", "http", ConnectFailed, "head is not HTTP"},
		"quoted":       {"secret-words\n\n", "http", ConnectFailed, "head is not HTTP"},
		"half a head":  {"HTTP/1.1 200 OK\r\nx: secret", "http", ConnectTimeout, "deadline exceeded"},
		"bare LF":      {"HTTP/1.1 200 secret\nx: y\n\n", "http", ConnectFailed, "ends in LF without CR"},
		"endless head": {"HTTP/1.1 200 OK\r\nx: " + strings.Repeat("x", 100_000), "http", ConnectFailed, "longer than 65536 bytes"},
		"speaks":       {"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "http", ConnectFailed, "unasked"},
		"hangs":        {"", "http", ConnectTimeout, "deadline exceeded"},
		"hangs, socks": {"", "socks5", ConnectTimeout, "timeout"},
		"hangs, https": {"", "https", ConnectTimeout, "deadline exceeded"},
		"no SOCKS":     {"nonsense", "socks5", ConnectFailed, "unexpected protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if conn, err := ln.Accept(); err == nil {
					_, _ = conn.Read(make([]byte, 4096))
					_, _ = io.WriteString(conn, test.answer)
					_, _ = io.Copy(io.Discard, conn)
					conn.Close()
				}
			}()
			defer func() { ln.Close(); <-done }()
			p := empty()
			defer p.Close()
			target := targetOf(t, p, fmt.Sprintf("timeouts: {connect: 100ms}\nupstreams: {up: {base_url: http://up.test/v1, proxy: %s://user:sesame@%s}}\nmodels: {m: {targets: [{upstream: up}]}}\n",
				test.scheme, ln.Addr()))
			_, err = exchange(t, target, "x")
			var e *Error
			if !errors.As(err, &e) || e.Cause != test.want || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestAnotherWay: with another proxy or another authority it is another upstream.
func TestAnotherWay(t *testing.T) {
	ca := upstreamtest.NewAuthority(t)
	path := filepath.Join(t.TempDir(), "config.yaml")
	p := empty()
	t.Cleanup(p.Close)
	build := func(more string) *Upstream {
		if err := os.WriteFile(path, []byte("admin: {token: 0123456789abcdef}\nupstreams: {a: {base_url: https://a/v1"+more+"}}\nmodels: {m: {targets: [{upstream: a}]}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := config.Load(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		s := p.Build(cfg)
		p.Adopt(s)
		return s.Upstreams[0]
	}
	seen := map[*Upstream]bool{}
	for _, more := range []string{"", ", proxy: http://one:1", ", proxy: http://user:x@one:1", ", ca: " + ca.File} {
		u := build(more)
		if seen[u] {
			t.Errorf("with %q nothing changes", more)
		}
		if build(more) != u {
			t.Errorf("with the same %q it is another", more)
		}
		seen[u] = true
	}
	before := build(", ca: " + ca.File)
	other := upstreamtest.NewAuthority(t)
	pem, err := os.ReadFile(other.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.File, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	if build(", ca: "+ca.File) == before {
		t.Error("the authority's file has changed, and nothing else has")
	}
}
