package proxy

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/upstreamtest"
	"sluice/keys"
)

// The tests in this file run in bubbles with a clock of their own, which stands still while
// anything happens: what an attempt takes is known to the millisecond.

const (
	retryBase = 100 * time.Millisecond
	twoModels = `
admin: {token: 0123456789abcdef}
retry: {base: 100ms, max: 1s}
timeouts: {connect: 2s, first_byte: 10s, response: 20s, total: 60s, stream_idle: 5s, stream_keepalive: 15s}
upstreams: {a: {base_url: "HTTP://a.example.com/v1", max_in_flight: 1}, b: {base_url: "http://b.example.com/v1", max_in_flight: 1}}
models:
  m: {targets: [{upstream: a, model: a-m}], MORE}
  n: {targets: [{upstream: b, model: b-n}], max_retries: 0}
`
)

// good answers as the request asks: plain, or with a stream.
var good = upstreamtest.Step{Answer: func(conn net.Conn, r *upstreamtest.Recorded) {
	text := okReply
	if strings.Contains(string(r.Body), `"stream":true`) {
		text = upstreamtest.Events(chunkOne, chunkDone) + upstreamtest.LastChunk
	}
	_, _ = io.WriteString(conn, text)
}}

// testTLS is the server's side of TLS for *.example.com. TestMain has its root trusted.
var testTLS *tls.Config

// trustTestServers makes testTLS from httptest's certificate and lets this process trust it.
func trustTestServers() (remove func()) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	testTLS = &tls.Config{Certificates: server.TLS.Certificates}
	dir, err := os.MkdirTemp("", "sluice-test-")
	if err != nil {
		panic(err)
	}
	path := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", path)
	return func() { os.RemoveAll(dir) }
}

// end is what becomes of an attempt.
type end struct {
	cause   string // as the answer has it
	status  int    // the upstream's, 0 if it gave none
	takes   time.Duration
	retried bool // on the same model
	stays   bool // no configured fallback is tried
	answer  int  // the client's status when nothing else is tried, if not the upstream's own answer
}

// fault is a way in which an upstream can fail, and what becomes of a plain and of a
// streamed request.
type fault struct {
	name          string
	step          upstreamtest.Step
	secure        bool
	plain, stream end
}

func (e end) shown() string {
	switch e.cause {
	case "status", "credential_refused", "redirect":
		return fmt.Sprint(e.status)
	}
	return e.cause
}

func faults() []fault {
	const json, events = "application/json", "text/event-stream"
	lost := func(cause string) end { return end{cause: cause, retried: true, answer: 502} }
	late := func(cause string, d time.Duration) end {
		return end{cause: cause, takes: d, retried: true, answer: 504}
	}
	both := func(name string, step upstreamtest.Step, e end) fault {
		return fault{name: name, step: step, plain: e, stream: e}
	}
	with := func(e end, status int) end { e.status = status; return e }
	paidFor := func(status int) end {
		return end{cause: "response_timeout", status: status, takes: 20 * time.Second, answer: 504}
	}
	list := []fault{
		both("no connection", upstreamtest.Refuse(), lost("connect_failed")),
		both("no connection in time", upstreamtest.Blackhole(), late("connect_timeout", 2*time.Second)),
		{name: "no TLS", step: upstreamtest.NoTLS(), secure: true, plain: lost("tls_failed"), stream: lost("tls_failed")},
		both("closed without an answer", upstreamtest.Break(""), lost("connection_lost")),
		{name: "closed without an answer, over TLS", step: upstreamtest.Break(""), secure: true, plain: lost("connection_lost"), stream: lost("connection_lost")},
		both("half a head", upstreamtest.Break("HTTP/1.1 200 OK\r\nContent-"), lost("malformed_response")),
		both("not HTTP", upstreamtest.Say("SSH-2.0-OpenSSH_9.6\r\n\r\n"), lost("malformed_response")),
		both("another protocol", upstreamtest.Say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), with(lost("malformed_response"), 101)),
		both("half a body", upstreamtest.Break("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"+okBody), with(lost("response_broken"), 200)),
		both("half a chunked body", upstreamtest.Break("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n"), with(lost("response_broken"), 200)),
		both("half a body until the end of the connection", upstreamtest.Break("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\":"), with(lost("response_broken"), 200)),
		both("a body that stalls", upstreamtest.Stall("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"), paidFor(200)),
		both("a stream that ends at once", upstreamtest.Say(upstreamtest.Events()+upstreamtest.LastChunk), with(lost("response_broken"), 200)),
		both("a stream that breaks at once", upstreamtest.Break(upstreamtest.Events()), with(lost("response_broken"), 200)),
		both("a stream of comments", upstreamtest.Say(upstreamtest.Events(": hello\n\n")+upstreamtest.LastChunk), with(lost("response_broken"), 200)),
		both("half an event", upstreamtest.Break(upstreamtest.Events(`data: {"choi`)), with(lost("response_broken"), 200)),
		both("a stream that begins with an error", upstreamtest.Say(upstreamtest.Events(`data: {"error":{"message":"theirs"}}`+"\n\n")+upstreamtest.LastChunk),
			with(lost("error_event"), 200)),
		both("a stream that begins with an error event", upstreamtest.Say(upstreamtest.Events("event: error\ndata: {}\n\n")+upstreamtest.LastChunk),
			with(lost("error_event"), 200)),
		{name: "silence", step: upstreamtest.Stall(""), plain: paidFor(0), stream: late("first_byte_timeout", 10*time.Second)},
		{name: "silence after half a head", step: upstreamtest.Stall("HTTP/1.1 200 OK\r\n"), plain: paidFor(0), stream: late("first_byte_timeout", 10*time.Second)},
	}
	silent := with(late("first_byte_timeout", 10*time.Second), 200)
	list = append(list,
		both("a stream without an event", upstreamtest.Stall(upstreamtest.Events()), silent),
		both("a stream with comments and no event", upstreamtest.Stall(upstreamtest.Events(": hello\n\n", "event: ping\ndata: {}\n\n")), silent))
	for _, s := range []string{"408 Request Timeout", "409 Conflict", "425 Too Early", "429 Too Many Requests",
		"500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "529 Overloaded"} {
		list = append(list, both(s, upstreamtest.Say(upstreamtest.Whole(s, json, "", errorBody)), end{cause: "status", status: number(s), retried: true}))
	}
	list = append(list, both("an error that is an event stream", upstreamtest.Say(upstreamtest.Whole("500 Oh", events, "", errorBody)),
		end{cause: "status", status: 500, retried: true}))
	for _, s := range []string{"404 Not Found", "405 Method Not Allowed", "410 Gone", "418 I'm a teapot", "424 Failed Dependency", "451 Unavailable For Legal Reasons", "498 Invalid Token",
		"501 Not Implemented", "507 Insufficient Storage", "520 Unknown", "530 Origin Unreachable"} {
		list = append(list, both(s, upstreamtest.Say(upstreamtest.Whole(s, json, "", errorBody)), end{cause: "status", status: number(s)}))
	}
	for _, s := range []string{"400 Bad Request", "413 Content Too Large", "422 Unprocessable Content"} {
		list = append(list, both(s, upstreamtest.Say(upstreamtest.Whole(s, json, "", errorBody)), end{cause: "status", status: number(s), stays: true}))
	}
	for _, s := range []string{"401 Unauthorized", "402 Payment Required", "403 Forbidden"} {
		list = append(list, both(s, upstreamtest.Say(upstreamtest.Whole(s, json, "", errorBody)), end{cause: "credential_refused", status: number(s), answer: 502}))
	}
	list = append(list, both("403 of a firewall", upstreamtest.Say(upstreamtest.Whole("403 Forbidden", "text/html; charset=utf-8", "", "<p>blocked</p>")),
		end{cause: "status", status: 403, answer: 502}))
	for _, s := range []string{"301 Moved Permanently", "307 Temporary Redirect"} {
		list = append(list, both(s, upstreamtest.Say(upstreamtest.Whole(s, json, "Location: http://b.example.com/\r\n", errorBody)), end{cause: "redirect", status: number(s), answer: 502}))
	}
	return list
}

const errorBody = `{"error":{"message":"theirs","type":"x"}}`

func number(status string) (n int) {
	_, _ = fmt.Sscan(status, &n)
	return n
}

// saidBy is the answer's gateway member, as the contract has it.
func saidBy(model, upstream string, attempts int, failed ...string) string {
	text := fmt.Sprintf(`"gateway":{"model":%q,"upstream":%q,"attempts":%d`, model, upstream, attempts)
	if len(failed) > 0 {
		text += `,"failed":[` + strings.Join(failed, ",") + `]`
	}
	return text + "}"
}

func (e end) failedEntry(model, upstream string) string {
	status := "null"
	if e.status != 0 {
		status = fmt.Sprint(e.status)
	}
	return fmt.Sprintf(`{"model":%q,"upstream":%q,"status":%s,"error":%q}`, model, upstream, status, e.cause)
}

// TestEveryFault: each fault, for plain requests and streams, met by a retry, by a configured
// fallback and by the client's sequence; and when there is nothing else.
func TestEveryFault(t *testing.T) {
	for _, f := range faults() {
		for _, streamed := range []bool{false, true} {
			for _, mode := range []string{"retry", "fallback", "sequence", "nothing else"} {
				name := fmt.Sprintf("%s, %s, %s", f.name, map[bool]string{true: "stream", false: "plain"}[streamed], mode)
				t.Run(name, func(t *testing.T) { inBubble(t, func(t *testing.T) { meet(t, f, streamed, mode) }) })
			}
		}
	}
}

// inBubble runs f with a clock of its own. A goroutine that f leaves behind is a failure.
func inBubble(t *testing.T, f func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		// fasthttp's cleaners of idle connections and workers look for their end now and then.
		t.Cleanup(func() { time.Sleep(2 * time.Minute) })
		f(t)
	})
}

func meet(t *testing.T, f fault, streamed bool, mode string) {
	e := f.plain
	body := `{"model":"m","gateway":{}}`
	if streamed {
		e, body = f.stream, `{"model":"m","stream":true,"gateway":{}}`
	}
	config, scheme, secure := twoModels, "http", (*tls.Config)(nil)
	if f.secure {
		scheme, secure = "https", testTLS
	}
	more, steps := "max_retries: 0", []upstreamtest.Step{f.step}
	asked := 1  // of upstream a
	helped := 0 // of upstream b
	switch mode {
	case "retry":
		more, steps = "max_retries: 2", append(steps, f.step, good)
		if e.retried {
			asked = 3
		}
	case "fallback":
		more = "max_retries: 0, fallbacks: [n]"
		if !e.stays {
			helped = 1
		}
	case "sequence":
		body = strings.Replace(body, `"gateway":{}`, `"gateway":{"models":["m","n"]}`, 1)
		helped = 1
	}
	a, b := upstreamtest.NewScript(t, secure, steps...), upstreamtest.NewScript(t, nil, good)
	hosts := upstreamtest.Hosts{"a.example.com": a, "b.example.com": b}
	g := startInMemory(t, strings.NewReplacer("HTTP", scheme, "MORE", more).Replace(config), "", hosts.Dial)
	most := int64(1000) // and every other limit that there is
	_, g.secret = g.key(keys.Spec{Name: "limited", Limits: keys.Limits{Requests: &most, Tokens: &most, Concurrent: &most}})
	began := time.Now()
	got := g.post("/v1/chat/completions", body)
	took := time.Since(began)

	// How the attempts must have gone.
	var trail, failed []string
	tries, success := asked, asked == 3
	if success {
		tries = 2
	}
	for range tries {
		trail = append(trail, fmt.Sprintf("m@a;%s;%d", e.shown(), e.takes.Milliseconds()))
		failed = append(failed, e.failedEntry("m", "a"))
	}
	model, upstream := "m", "a"
	if helped == 1 {
		model, upstream, success = "n", "b", true
	}
	if success {
		trail = append(trail, model+"@"+upstream+";200;0")
	}
	attempts := len(trail)
	want := map[string]string{
		"X-Sluice-Model": model, "X-Sluice-Upstream": upstream,
		"X-Sluice-Attempts": fmt.Sprint(attempts), "X-Sluice-Trail": strings.Join(trail, ","),
	}
	have := map[string]string{}
	for name := range want {
		have[name] = got.header.Get(name)
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Error(d)
	}
	if a.Asked() != asked || b.Asked() != helped {
		t.Errorf("a was asked %d times and b %d times, want %d and %d", a.Asked(), b.Asked(), asked, helped)
	}
	for upstream, script := range map[string]*upstreamtest.Script{`"model":"a-m"`: a, `"model":"b-n"`: b} {
		for _, r := range script.Requests() {
			if !strings.Contains(string(r.Body), upstream) || strings.Contains(string(r.Body), "gateway") {
				t.Errorf("sent %s", r.Body)
			}
		}
	}

	counted := int64(tries)
	if e.stays {
		counted = 0 // the request's own fault
	}
	for _, u := range g.p.Set().Upstreams {
		if s := u.Status(); u.Name == "a" && s.Failures != counted {
			t.Errorf("%d failures of a are counted, want %d", s.Failures, counted)
		}
	}

	// What the client must have got.
	switch m := saidBy(model, upstream, attempts, failed...); {
	case success && streamed:
		if text := strings.Replace(chunkOne, "{", "{"+m+",", 1) + chunkDone; got.status != 200 || got.body != text {
			t.Errorf("%d %s\nwant %s", got.status, got.body, text)
		}
	case success:
		if text := "{" + m + "," + okBody[1:]; got.status != 200 || got.body != text {
			t.Errorf("%d %s\nwant %s", got.status, got.body, text)
		}
	case e.answer != 0:
		code := map[int]string{502: "upstream_error", 504: "upstream_timeout"}[e.answer]
		errorRow{e.answer, "upstream_error", "", code, ""}.check(t, got)
	default:
		if text := "{" + saidBy("m", "a", 1) + "," + errorBody[1:]; got.status != e.status || got.body != text {
			t.Errorf("%d %s\nwant %d %s", got.status, got.body, e.status, text)
		}
	}

	// How long it must have taken: each attempt its time, and before the k-th retry no more
	// than the base doubled k-1 times.
	least := time.Duration(tries) * e.takes
	longest := least
	for k := range asked - 1 {
		longest += retryBase << k
	}
	if took < least || took > longest {
		t.Errorf("it took %v, want %v to %v", took, least, longest)
	}
	g.wantNothingLeft()

	// What it must have cost the key: an answer, nothing else.
	key := g.keys.Lookup([]byte(g.secret))
	requests, tokens := g.left(key, "requests"), g.left(key, "tokens")
	if requests.Remaining != most-1 || (tokens.Remaining < most) != success {
		t.Errorf("%d requests and %d tokens of %d are left", requests.Remaining, tokens.Remaining, most)
	}
}

// held is how many bytes of bodies are held.
func (g *gateway) held() int64 {
	return g.p.memory.InFlight() - g.p.conns.Memory()
}

// wantNothingLeft waits until nothing is under way any more, and holds the counts against that.
func (g *gateway) wantNothingLeft() {
	g.t.Helper()
	synctest.Wait()
	if n := g.p.gate.InFlight(); n != 0 {
		g.t.Errorf("%d requests are in flight", n)
	}
	for _, u := range g.p.Set().Upstreams {
		s := u.Status()
		if s.Places != 0 || s.Waiting != 0 {
			g.t.Errorf("upstream %s has %d places taken, and %d wait for one", s.Name, s.Places, s.Waiting)
		}
		if s.InFlight != 0 || s.Connections != s.Idle {
			g.t.Errorf("upstream %s has %d in flight, and %d connections of which %d are idle", s.Name, s.InFlight, s.Connections, s.Idle)
		}
		for _, target := range s.Targets {
			if target.InFlight != 0 {
				g.t.Errorf("%s at %s has %d in flight", target.Target, s.Name, target.InFlight)
			}
		}
	}
	if n := g.held(); n != 0 {
		g.t.Errorf("%d bytes of bodies are held", n)
	}
	list, _ := g.keys.List(1000, "")
	for _, k := range list {
		if k.Gate.InFlight() != 0 || k.Unsettled() != 0 {
			g.t.Errorf("key %s has %d in flight, and %d charges to settle", k.Spec().Name, k.Gate.InFlight(), k.Unsettled())
		}
	}
	if n := g.p.conns.Waiting(); n != 0 {
		g.t.Errorf("%d connections still wait for something", n)
	}
}
