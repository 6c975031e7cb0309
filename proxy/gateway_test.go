package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"
	"go.uber.org/goleak"

	"sluice/config"
	"sluice/keys"
	"sluice/metrics"
	"sluice/pool"

	"sluice/internal/upstreamtest"
)

func TestMain(m *testing.M) {
	remove := trustTestServers()
	// It has one goroutine for the life of a process, which must not belong to a bubble.
	_ = new(fasthttp.ResponseHeader).Header()
	goleak.VerifyTestMain(m,
		goleak.Cleanup(func(code int) {
			remove()
			os.Exit(code)
		}),
		// fasthttp's clock, for the life of a process.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1.1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		// Ends within ten seconds of its server.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		// Ends when it finds no connection left, which it looks for once per idle time.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"),
	)
}

// gateway is a Proxy that serves, from configuration text to response bytes.
type gateway struct {
	t      testing.TB
	p      *Proxy
	keys   *keys.Store
	m      *metrics.Metrics
	ln     net.Listener
	dial   func(context.Context, string, string) (net.Conn, error)
	secret string
	log    *upstreamtest.Buffer
	client *http.Client
}

// oneModel is a configuration with a model m, called up-m by an upstream at UP, which is asked
// once.
const oneModel = `
retry: {max_retries: 0}
admin: {token: 0123456789abcdef}
upstreams: {up: {base_url: "http://UP/base", api_key: provider-key}}
models: {m: {targets: [{upstream: up, model: up-m}]}}
`

func load(t testing.TB, text, up string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "UP", up)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// start serves text over an in-memory listener, with UP in it replaced by up.
func start(t testing.TB, text, up string) *gateway {
	t.Helper()
	return startInMemory(t, text, up, nil)
}

func startInMemory(t testing.TB, text, up string, dialUpstream pool.Dial) *gateway {
	t.Helper()
	ln := fasthttputil.NewInmemoryListener()
	g := startOn(t, text, up, ln, dialUpstream)
	g.dial = func(context.Context, string, string) (net.Conn, error) { return ln.Dial() }
	return g
}

// startPiped is start with an upstream at the other end of unbuffered pipes.
func startPiped(t testing.TB, text string, answer func(net.Conn)) *gateway {
	t.Helper()
	up := upstreamtest.NewPiped(t, func(conn net.Conn, _ *upstreamtest.Recorded) { answer(conn) })
	return startInMemory(t, text, "127.0.0.1:1", up.Dial)
}

// startTCP serves over a loopback port.
func startTCP(t testing.TB, text, up string) *gateway {
	t.Helper()
	return startSecure(t, text, up, nil)
}

// startSecure is startTCP over TLS, unless secure is nil. What dials stays TCP's.
func startSecure(t testing.TB, text, up string, secure *tls.Config) *gateway {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	g := startOn(t, text, up, ln, nil)
	g.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	}
	return g
}

func startOn(t testing.TB, text, up string, ln net.Listener, dialUpstream pool.Dial) *gateway {
	t.Helper()
	began := time.Now()
	clock := func() time.Duration { return time.Since(began) }
	store, err := keys.Open(filepath.Join(t.TempDir(), "keys.db"), clock)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, keys: store, m: metrics.New(), ln: ln, log: &upstreamtest.Buffer{}}
	log := slog.New(slog.NewJSONHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	upstreams := pool.New(g.m, log, clock, dialUpstream)
	// A ring of 4,096 requests for each of a thousand gateways takes a fifth of the time of the tests.
	g.p = New(Parts{Keys: store, Pool: upstreams, Metrics: g.m, Log: log, Clock: clock, Memory: 1 << 40, Access: g.log, Kept: 64})
	g.p.cutPause = 10 * time.Millisecond // few tests are about it
	if err := g.p.Apply(load(t, text, up)); err != nil {
		t.Fatal(err)
	}
	served := g.p.Start(ln)
	g.client = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, network, addr string) (net.Conn, error) { return g.dial(ctx, network, addr) },
		DisableCompression: true,
	}}
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		g.p.Shutdown(ctx, 0)
		if err := <-served; err != nil {
			t.Error(err)
		}
		if n := g.p.gate.InFlight(); n != 0 {
			t.Errorf("%d requests are still in flight at the end", n)
		}
		// The server does not wait for connections that it is about to close.
		eventually(t, "no memory is held any more", func() bool { return g.p.memory.InFlight() == 0 })
		upstreams.Close()
		store.Close()
	})
	_, g.secret = g.key(keys.Spec{Name: "test"})
	return g
}

func (g *gateway) key(spec keys.Spec) (*keys.Spec, string) {
	g.t.Helper()
	made, secret, err := g.keys.Create(spec)
	if err != nil {
		g.t.Fatal(err)
	}
	return made, secret
}

// answer is a response, read to its end.
type response struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// post sends body to a path with the test key; header pairs follow.
func (g *gateway) post(path, body string, header ...string) response {
	g.t.Helper()
	return g.send("POST", path, body, header...)
}

func (g *gateway) send(method, path, body string, header ...string) response {
	g.t.Helper()
	resp, err := g.open(method, path, body, header...)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(b), err}
}

func (g *gateway) open(method, path, body string, header ...string) (*http.Response, error) {
	g.t.Helper()
	req, err := http.NewRequest(method, "http://gateway.test/", strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.URL.Opaque = "//gateway.test" + path // as it stands
	req.Header.Set("Authorization", "Bearer "+g.secret)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Del(header[i])
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	return g.client.Do(req)
}

// begin sends body on a connection of its own, which is the test's to close.
func (g *gateway) begin(body string) net.Conn {
	g.t.Helper()
	conn, err := g.dial(context.Background(), "", "")
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", g.secret, len(body), body)
	return conn
}

// raw writes text to a new connection and returns all that comes back.
func (g *gateway) raw(text string) string {
	g.t.Helper()
	conn, err := g.dial(context.Background(), "", "")
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		g.t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, io.EOF) {
		g.t.Fatalf("%v after %q", err, b)
	}
	return string(b)
}

// reply is an upstream's answer with a Content-Length.
func reply(status, contentType, body string) string {
	return upstreamtest.Whole(status, contentType, "", body)
}

const okBody = `{"id":"x","choices":[{}]}`

var okReply = reply("200 OK", "application/json", okBody)

const okAnnotated = `{"gateway":{"model":"m","upstream":"up","attempts":1},"id":"x","choices":[{}]}`

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// chunks writes an event stream's head and then parts, a chunk each.
func chunks(conn net.Conn, parts ...string) {
	w := bufio.NewWriter(conn)
	_, _ = w.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, p := range parts {
		writeChunk(w, p)
	}
	_, _ = w.WriteString("0\r\n\r\n")
	_ = w.Flush()
}

func writeChunk(w io.Writer, p string) {
	_, _ = io.WriteString(w, strconv.FormatInt(int64(len(p)), 16)+"\r\n"+p+"\r\n")
}

// chunked is events, a chunk each.
func chunked(events string) string {
	var b strings.Builder
	for e := range strings.SplitAfterSeq(events, "\n\n") {
		if e != "" {
			writeChunk(&b, e)
		}
	}
	return b.String()
}
