package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/config"
	"sluice/internal/upstreamtest"
	"sluice/keys"
)

// TestEarlyRefusalReachesASender: a client that sends far more than it may, and reads only
// when it has sent all, reads its refusal.
func TestEarlyRefusalReachesASender(t *testing.T) {
	g := startTCP(t, oneModel+"limits: {body: 1MiB}\n", "127.0.0.1:1")
	body := make([]byte, 20<<20)
	for i := range body {
		body[i] = 'x'
	}
	for name, test := range map[string]struct {
		key, framing string
		want         int
	}{
		"too large, announced":     {g.secret, "length", 413},
		"too large, chunked":       {g.secret, "chunked", 413},
		"without a key, announced": {"", "length", 401},
		"without a key, chunked":   {"", "chunked", 401},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := g.dial(context.Background(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			head := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + test.key + "\r\n"
			if test.framing == "length" {
				_, err = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n", head, len(body))
			} else {
				_, err = fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n", head, len(body))
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(body); err != nil {
				t.Fatalf("the gateway stopped taking the body: %v", err)
			}
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.HasPrefix(got, []byte(fmt.Sprintf("HTTP/1.1 %d ", test.want))) || !bytes.HasSuffix(got, []byte("}}")) {
				t.Errorf("%v %q", err, got)
			}
		})
	}
}

// TestMemoryFollowsTheBytesThatArrive: an announced length allocates nothing.
func TestMemoryFollowsTheBytesThatArrive(t *testing.T) {
	g := startTCP(t, oneModel+"limits: {body: 512MiB}\n", "127.0.0.1:1")
	conn, err := g.dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", g.secret, 500<<20, strings.Repeat("x", 20<<10))
	eventually(t, "the request is being read", func() bool { return g.p.gate.InFlight() == 1 })
	conn.Close()
	eventually(t, "the request is over", func() bool { return g.p.gate.InFlight() == 0 })
	r := g.p.acquireRequest() // the pool gives the newest back
	if cap(r.body) > 1<<20 {
		t.Errorf("%d bytes were taken for 20 KiB", cap(r.body))
	}
}

func TestMalformedHeadsLeaveNoTrace(t *testing.T) {
	g := startTCP(t, oneModel, "127.0.0.1:1")
	key := g.secret
	for _, head := range []string{
		"POST /v1/chat/completions\r\nAuthorization: Bearer " + key + "\r\n\r\n",
		"POST /v1/chat/completions HTTP/1.1\r\nAuthorization Bearer " + key + "\r\n\r\n",
		"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nContent-Length: x\r\n\r\n",
		"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n Authorization: Bearer " + key + "\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01" + key + "\r\n\r\n",
		"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\x00\r\n\r\n",
		"POST http://[" + key + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		got := g.raw(head)
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, `"code":"invalid_request"`) {
			t.Errorf("%.60q: %q", head, got)
		}
		if strings.Contains(got, key) {
			t.Errorf("the key is in the answer: %q", got)
		}
	}
	got := g.raw("GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nX-Long: " + strings.Repeat("x", 40<<10) + "\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 431 ") || !strings.Contains(got, `"code":"head_too_large"`) {
		t.Errorf("%q", got)
	}
	if log := g.log.String(); strings.Contains(log, key) || strings.Contains(log, key[10:]) {
		t.Errorf("the key is in the log: %s", log)
	}
}

func TestSlowClients(t *testing.T) {
	g := startTCP(t, oneModel+"timeouts: {client: {header: 500ms, body: 500ms, idle: 500ms}}\n", "127.0.0.1:1")
	auth := "Host: x\r\nAuthorization: Bearer " + g.secret + "\r\n"
	for name, test := range map[string]struct{ text, want string }{
		"half a head": {"POST /v1/chat/completions HTTP/1.1\r\nHost", "HTTP/1.1 408 "},
		"half a body": {"POST /v1/chat/completions HTTP/1.1\r\n" + auth + "Content-Length: 10000\r\n\r\n" + strings.Repeat("x", 9000), "HTTP/1.1 408 "},
	} {
		if got := g.raw(test.text); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	// Idle: closed without a word, before a request and after one.
	if got := g.raw(""); got != "" {
		t.Errorf("nothing asked: %q", got)
	}
	got := g.raw("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") || strings.Count(got, "HTTP/1.1") != 1 {
		t.Errorf("idle: %q", got)
	}
}

// TestClientThatDoesNotReadIsCutOff: its stream ends, and the upstream's with it.
func TestClientThatDoesNotReadIsCutOff(t *testing.T) {
	event := "data: " + strings.Repeat("x", 60<<10) + "\n\n"
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, streamHead)
		for {
			if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", len(event), event); err != nil {
				return
			}
		}
	})
	g := startTCP(t, oneModel+"timeouts: {client: {write: 200ms}}\n", up.Address())
	conn, err := g.dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", g.secret, len(request1), request1)
	select {
	case <-up.Closed():
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream is still read for a client that does not read")
	}
	eventually(t, "nothing is in flight", func() bool { return g.p.gate.InFlight() == 0 })
}

// TestClientThatLeaves: its upstream request is closed within a second, whatever it
// waits for.
func TestClientThatLeaves(t *testing.T) {
	silent := func(conn net.Conn, _ *upstreamtest.Recorded) { _, _ = io.Copy(io.Discard, conn); conn.Close() }
	after := func(text string) func(net.Conn, *upstreamtest.Recorded) {
		return func(conn net.Conn, r *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, text)
			silent(conn, r)
		}
	}
	chatter := func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, streamHead)
		for {
			if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", len(chunkOne), chunkOne); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	first := fmt.Sprintf("%s%x\r\n%s\r\n", streamHead, len(chunkOne), chunkOne)
	for name, test := range map[string]struct {
		body   string
		answer func(net.Conn, *upstreamtest.Recorded)
	}{
		"plain, before an answer":          {`{"model":"m"}`, silent},
		"plain, in the head":               {`{"model":"m"}`, after("HTTP/1.1 200 OK\r\n")},
		"plain, in the body":               {`{"model":"m"}`, after("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")},
		"passing through":                  {`{"model":"m"}`, after("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 9\r\n\r\nx")},
		"stream, before the head":          {request1, silent},
		"stream, before the first event":   {request1, after(streamHead)},
		"stream, in silence":               {request1, after(first)},
		"stream, while the upstream sends": {request1, chatter},
	} {
		for _, how := range []string{"close", "reset", "half-close", "close over TLS"} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				scheme, secure := "http", (*tls.Config)(nil)
				if how == "close over TLS" { // on both sides
					scheme, secure = "https", testTLS
				}
				up := upstreamtest.NewRawTLS(t, secure, test.answer)
				g := startSecure(t, strings.Replace(oneModel, "http:", scheme+":", 1), up.Address(), secure)
				tcp, err := g.dial(context.Background(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer tcp.Close()
				conn := tcp
				if secure != nil {
					conn = tls.Client(tcp, &tls.Config{ServerName: "example.com"})
				}
				fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", g.secret, len(test.body), test.body)
				eventually(t, "the upstream has the request", func() bool { return len(up.Requests()) == 1 })
				left := time.Now()
				switch tcp := tcp.(*net.TCPConn); how {
				case "reset":
					_ = tcp.SetLinger(0)
					conn.Close()
				case "half-close":
					_ = tcp.CloseWrite()
				default:
					conn.Close()
				}
				<-up.Closed()
				if took := time.Since(left); took > 5*time.Second {
					t.Errorf("after %v", took)
				}
				eventually(t, "nothing is in flight", func() bool { return g.p.gate.InFlight() == 0 })
				eventually(t, "it is counted", func() bool { return testutil.ToFloat64(g.m.CancelledUpstreams) == 1 })
			})
		}
	}
}

// TestPipelinedRequests are answered one after the other.
func TestPipelinedRequests(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := startTCP(t, oneModel, up.Address())
	one := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 13\r\n\r\n{\"model\":\"m\"}", g.secret)
	last := strings.Replace(one, "Host: x", "Host: x\r\nConnection: close", 1)
	if got := g.raw(one + one + last); strings.Count(got, okAnnotated) != 3 {
		t.Errorf("%q", got)
	}
}

func TestExpectContinue(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := startTCP(t, oneModel+"access_log: true\n", up.Address())
	got := g.raw(fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\nContent-Length: 13\r\n\r\n{\"model\":\"m\"}", g.secret))
	if !strings.HasPrefix(got, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK") || up.Requests()[0].Header.Get("Expect") != "" {
		t.Errorf("%q %v", got, up.Requests()[0].Header)
	}
	lines := func() int { return strings.Count(g.log.String(), `"msg":"request"`) }
	eventually(t, "the access line is there", func() bool { return lines() > 0 })
	if n := lines(); n != 1 {
		t.Errorf("%d access lines: %s", n, g.log)
	}
}

// TestReloadUnderLoad: no request fails and no upstream connection is closed.
func TestReloadUnderLoad(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := startTCP(t, oneModel, up.Address())
	hour, many := keys.Period(time.Hour), int64(1_000_000)
	_, secret := g.key(keys.Spec{Name: "counted", Limits: keys.Limits{Requests: &many, Period: &hour}})
	stop := make(chan struct{})
	type result struct {
		sent int64
		err  error
	}
	results := make(chan result)
	const workers = 4
	for range workers {
		go func() {
			var r result
			defer func() { results <- r }()
			client := &http.Client{Transport: &http.Transport{DialContext: g.dial}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				req, _ := http.NewRequest("POST", "http://x/v1/chat/completions", strings.NewReader(`{"model":"m"}`))
				req.Header.Set("Authorization", "Bearer "+secret)
				resp, err := client.Do(req)
				if err != nil {
					r.err = err
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || string(b) != okAnnotated {
					r.err = fmt.Errorf("%d %s %v", resp.StatusCode, b, err)
					return
				}
				r.sent++
			}
		}()
	}
	configs := []*config.Config{
		load(t, oneModel, up.Address()),
		load(t, strings.Replace(oneModel, "up-m", "other", 1)+"limits: {in_flight: 100}\n", up.Address()),
		load(t, strings.Replace(oneModel, "api_key: provider-key", "api_key: other, headers: {x-a: b}", 1), up.Address()),
	}
	for i := range 200 {
		if err := g.p.Apply(configs[i%len(configs)]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a request came after the reload", func() bool { return len(up.Requests()) > i })
	}
	close(stop)
	sent := int64(0)
	for range workers {
		r := <-results
		sent += r.sent
		if r.err != nil {
			t.Error(r.err)
		}
	}
	if n := up.Accepted(); n > workers {
		t.Errorf("%d upstream connections for %d clients", n, workers)
	}
	if a := g.send("GET", "/v1/key", "", "Authorization", "Bearer "+secret); !strings.Contains(a.body, fmt.Sprintf(`"requests":%d,"reset`, many-sent)) {
		t.Errorf("the window was not kept: %d sent, %s", sent, a.body)
	}
}

// TestRetiredUpstream: a request under way ends on the upstream it began with, and then its
// connection is closed.
func TestRetiredUpstream(t *testing.T) {
	proceed := make(chan struct{})
	old := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		<-proceed
		_, _ = io.WriteString(conn, okReply)
	})
	g := start(t, oneModel, old.Address())
	done := make(chan response, 1)
	go func() { done <- g.post("/v1/chat/completions", `{"model":"m"}`) }()
	eventually(t, "the old upstream has the request", func() bool { return len(old.Requests()) == 1 })
	fresh := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	if err := g.p.Apply(load(t, oneModel, fresh.Address())); err != nil {
		t.Fatal(err)
	}
	if a := g.post("/v1/chat/completions", `{"model":"m"}`); a.status != 200 || len(fresh.Requests()) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	}
	close(proceed)
	if a := <-done; a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	<-old.Closed()
}

// TestShutdown: what is in flight ends, new connections are refused, and what does not end
// in time is told.
func TestShutdown(t *testing.T) {
	proceed := make(chan struct{})
	up := upstreamtest.NewRaw(t, func(conn net.Conn, r *upstreamtest.Recorded) {
		if strings.Contains(string(r.Body), "stream") {
			_, _ = io.WriteString(conn, streamHead)
			writeChunk(conn, chunkOne)
		}
		<-proceed
	})
	defer close(proceed)
	g := startTCP(t, oneModel, up.Address())
	s := g.stream("/v1/chat/completions")
	s.expect(t, annotatedOne)
	plain := make(chan response, 1)
	go func() { plain <- g.post("/v1/chat/completions", `{"model":"m"}`) }()
	eventually(t, "both are in flight", func() bool { return len(up.Requests()) == 2 })

	ctx, cancel := context.WithCancel(context.Background())
	down := make(chan struct{})
	go func() { g.p.Shutdown(ctx, 0); close(down) }()
	eventually(t, "it is draining", func() bool { return !g.p.Ready() })
	eventually(t, "new connections are refused", func() bool {
		conn, err := g.dial(context.Background(), "", "")
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case <-down:
		t.Fatal("it did not wait")
	default:
	}
	cancel()
	s.expect(t, `data: {"error":{"message":"the gateway is shutting down; try again","type":"overloaded_error","param":null,"code":"shutting_down"}}`+"\n\n")
	s.expectCut(t)
	errorRow{503, "overloaded_error", "", "shutting_down", "shutting down"}.check(t, <-plain)
	<-down
	if n := g.p.gate.InFlight(); n != 0 {
		t.Errorf("it returned with %d in flight", n)
	}
}

// TestShutdownDoesNotWaitForIdleClients, not even for those that were refused before.
func TestShutdownDoesNotWaitForIdleClients(t *testing.T) {
	g := startTCP(t, oneModel, "127.0.0.1:1")
	for range 3 {
		conn, err := g.dial(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789")
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	g.p.Shutdown(context.Background(), 0)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestRefusalDoesNotWaitForTheBody: neither for what was announced, nor for what a client
// asks whether to send.
func TestRefusalDoesNotWaitForTheBody(t *testing.T) {
	g := startTCP(t, oneModel, "127.0.0.1:1")
	for name, test := range map[string]struct{ request, want string }{
		"no key":          {"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 4000), "HTTP/1.1 401 "},
		"no path":         {"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nxxx", "HTTP/1.1 404 "},
		"too large":       {"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: " + g.secret + "\r\nContent-Length: 100000000\r\n\r\nxxx", "HTTP/1.1 413 "},
		"asks, no key":    {"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n", "HTTP/1.1 401 "},
		"asks, too large": {"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: " + g.secret + "\r\nExpect: 100-continue\r\nContent-Length: 100000000\r\n\r\n", "HTTP/1.1 413 "},
	} {
		conn, err := g.dial(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(conn, test.request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := "HTTP/1.1 " + resp.Status; !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %s", name, got)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Contains(b, []byte(`"error":{`)) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		conn.Close()
	}
}

// TestHalfClosedClientReadsNoSuccess: it counts as gone, and what it still reads says so.
func TestHalfClosedClientReadsNoSuccess(t *testing.T) {
	up := upstreamtest.NewRaw(t, func(conn net.Conn, r *upstreamtest.Recorded) {
		if strings.Contains(string(r.Body), "stream") {
			_, _ = io.WriteString(conn, streamHead)
			writeChunk(conn, "data: {\"a\":1}\n\n")
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	g := startTCP(t, oneModel, up.Address())
	for body, want := range map[string]string{
		`{"model":"m"}`: "HTTP/1.1 502 ",
		request1:        "HTTP/1.1 200 ",
	} {
		conn, err := g.dial(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-api-key: %s\r\nContent-Length: %d\r\n\r\n%s", g.secret, len(body), body)
		eventually(t, "the upstream has the request", func() bool { return g.p.Set().Upstreams[0].Status().InFlight == 1 })
		_ = conn.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), want) || !strings.Contains(string(got), `{"error":{`) {
			t.Errorf("%s: %q, %v", body, got, err)
		}
		conn.Close()
	}
}

// TestPlaceIsKeptUntilALargeAnswerIsTaken: an answer that nobody reads is in flight.
func TestPlaceIsKeptUntilALargeAnswerIsTaken(t *testing.T) {
	body := `{"a":"` + strings.Repeat("x", 16<<20) + `"}`
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(reply("200 OK", "application/json", body)))
	g := startTCP(t, oneModel, up.Address())
	resp, err := g.open("POST", "/v1/chat/completions", `{"model":"m"}`)
	if err != nil {
		t.Fatal(err)
	}
	if n := g.p.gate.InFlight(); n != 1 {
		t.Errorf("%d in flight while the answer is unread", n)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := strings.Replace(body, "{", "{"+ours+",", 1); err != nil || string(b) != want {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	eventually(t, "nothing is in flight", func() bool { return g.p.gate.InFlight() == 0 })
}

// TestBodyOfKnownLengthPassesAsItComes: no byte waits for a buffer to fill.
func TestBodyOfKnownLengthPassesAsItComes(t *testing.T) {
	next := make(chan string)
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 10\r\n\r\n")
		for part := range next {
			_, _ = io.WriteString(conn, part)
		}
	})
	g := startTCP(t, oneModel, up.Address())
	go func() { next <- "hello" }()
	resp, err := g.open("POST", "/v1/audio/speech", `{"model":"m"}`)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	o := opened{bufio.NewReader(resp.Body), nil}
	o.expect(t, "hello")
	next <- "world"
	o.expect(t, "world")
	close(next)
	o.expectEnd(t)
	if resp.ContentLength != 10 {
		t.Errorf("Content-Length %d", resp.ContentLength)
	}
}

// starved is a listener that has no file descriptor for the first clients.
type starved struct {
	net.Listener
	errors atomic.Int64
}

func (l *starved) Accept() (net.Conn, error) {
	if n := l.errors.Add(1); n <= 3 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE}[n-1])}
	}
	return l.Listener.Accept()
}

// TestAcceptGoesOn: without file descriptors the gateway waits for some, it does not end.
func TestAcceptGoesOn(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &starved{Listener: inner}
	g := startOn(t, oneModel, "127.0.0.1:1", ln, nil)
	g.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", inner.Addr().String())
	}
	if got := g.raw("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("%q", got)
	}
	if n := ln.errors.Load(); n < 4 {
		t.Errorf("%d times accepted", n)
	}
}

// TestDrainOfAPipeliningClient: what has been answered arrives, though more was asked.
func TestDrainOfAPipeliningClient(t *testing.T) {
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, reply("200 OK", "application/json", `{"x":"`+strings.Repeat("x", 1<<20)+`"}`))
	})
	g := startTCP(t, oneModel, up.Address())
	conn, err := g.dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	one := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + g.secret + "\r\nContent-Length: 13\r\n\r\n" + `{"model":"m"}`
	if _, err := io.WriteString(conn, strings.Repeat(one, 200)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is served", func() bool { return len(up.Requests()) > 0 })
	down := make(chan struct{})
	go func() { g.p.Shutdown(context.Background(), time.Minute); close(down) }()
	eventually(t, "it is draining", func() bool { return !g.p.Ready() })
	r := bufio.NewReader(conn)
	for last := false; !last; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n < 1<<20 {
			t.Fatalf("an answer of %d bytes: %v", n, err)
		}
		last = resp.Close
	}
	conn.Close()
	<-down
}
