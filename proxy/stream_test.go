package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/sse"
)

const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=9\r\n\r\n"
	chunkOne   = `data: {"id":"1","choices":[{"delta":{"content":"a"},"finish_reason":null}]}` + "\n\n"
	chunkTwo   = `data: {"id":"2","choices":[{"delta":{"content":"b"},"finish_reason":null}]}` + "\n\n"
	chunkStop  = `data: {"id":"3","choices":[{"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	chunkDone  = "data: [DONE]\n\n"
	ours       = `"gateway":{"model":"m","upstream":"up","attempts":1}`
	request1   = `{"model":"m","stream":true}`
)

// annotatedOne is chunkOne as the client gets it.
var annotatedOne = strings.Replace(chunkOne, "{", "{"+ours+",", 1)

const brokenEvent = `data: {"error":{"message":"upstream up failed: its stream broke off","type":"upstream_error","param":null,"code":"upstream_stream_broken"}}` + "\n\n"

func TestStream(t *testing.T) {
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		chunks(conn, chunkOne, chunkTwo, chunkStop, chunkDone)
	})
	g := start(t, oneModel, up.Address())
	for range 3 {
		a := g.post("/v1/chat/completions", request1)
		if want := annotatedOne + chunkTwo + chunkStop + chunkDone; a.status != 200 || a.body != want || a.err != nil {
			t.Fatalf("%d %v\ngot  %s\nwant %s", a.status, a.err, a.body, want)
		}
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no",
			"X-Sluice-Model": "m", "X-Sluice-Upstream": "up", "X-Sluice-Attempts": "1"} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
	if n := up.Accepted(); n != 1 {
		t.Errorf("%d connections for three streams in a row", n)
	}
}

// TestStreamSplitAnywhere cuts the upstream's bytes, framing included, at every position.
func TestStreamSplitAnywhere(t *testing.T) {
	bodies := map[string]string{
		"lf":       "data: {\"a\":\"é🙂\"}\n\n: c\n\ndata: [DONE]\n\n",
		"crlf":     "event: x\r\ndata: {\"a\":\"é🙂\"}\r\n\r\ndata: [DONE]\r\n\r\n",
		"cr":       "data: {\"a\":1}\r\rdata: [DONE]\r\r",
		"two line": "data: {\ndata: \"a\":1}\n\ndata: [DONE]\n\n",
		"empty":    "data: {}\n\ndata: [DONE]\n\n",
		"no end":   "data: {\"a\":1}\n\ndata: [DONE]",
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			wire := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
			half := len(body) / 2
			wire += fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", half, body[:half], len(body)-half, body[half:])
			cut := make(chan int, 1)
			// A write to a pipe returns when it has been read, so the halves arrive apart.
			g := startPiped(t, oneModel, func(conn net.Conn) {
				at := <-cut
				_, _ = io.WriteString(conn, wire[:at])
				_, _ = io.WriteString(conn, wire[at:])
			})
			comma := ","
			if name == "empty" {
				comma = ""
			}
			want := strings.Replace(body, "{", "{"+ours+comma, 1)
			for at := 1; at < len(wire); at++ {
				cut <- at
				if a := g.post("/v1/chat/completions", request1); a.body != want || a.status != 200 {
					t.Fatalf("cut at %d: %d\ngot  %q\nwant %q", at, a.status, a.body, want)
				}
			}
		})
	}
}

func TestLongEvent(t *testing.T) {
	long := `data: {"id":"` + strings.Repeat("x", 1<<20) + `"}` + "\n\n"
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { chunks(conn, long, chunkDone) })
	g := start(t, oneModel, up.Address())
	a := g.post("/v1/chat/completions", request1)
	if want := strings.Replace(long, "{", "{"+ours+",", 1) + chunkDone; a.body != want {
		t.Errorf("%d: %d bytes, want %d", a.status, len(a.body), len(want))
	}
	g = start(t, oneModel+"limits: {response: 64KiB}\n", up.Address())
	errorRow{502, "upstream_error", "", "upstream_error", "broke off"}.check(t, g.post("/v1/chat/completions", request1))
}

// opened is a stream that a test reads line by line.
type opened struct {
	*bufio.Reader
	close func() error
}

func (g *gateway) stream(path string) opened {
	g.t.Helper()
	resp, err := g.open("POST", path, request1)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		g.t.Fatalf("%d %s", resp.StatusCode, b)
	}
	return opened{bufio.NewReader(resp.Body), resp.Body.Close}
}

// expect reads exactly text.
func (o opened) expect(t *testing.T, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(o, b); err != nil || string(b) != text {
		t.Fatalf("got  %q, %v\nwant %q", b, err, text)
	}
}

func (o opened) expectEnd(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(o); err != nil || len(rest) > 0 {
		t.Fatalf("after the end: %q, %v", rest, err)
	}
}

// expectCut reads an end without the last chunk.
func (o opened) expectCut(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(o); err != io.ErrUnexpectedEOF || len(rest) > 0 {
		t.Fatalf("after the end: %q, %v", rest, err)
	}
}

// TestNoEventWaitsForTheNext: each event is with the client before the upstream sends
// another.
func TestNoEventWaitsForTheNext(t *testing.T) {
	next := make(chan string)
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, streamHead)
		for part := range next {
			writeChunk(conn, part)
		}
		_, _ = io.WriteString(conn, "0\r\n\r\n")
	})
	g := startTCP(t, oneModel, up.Address())
	events := []string{": hello\n", chunkOne, ": ping\n", "event: ping\ndata: {}\n\n", chunkTwo, chunkTwo + chunkTwo, chunkStop, chunkDone}
	go func() {
		next <- events[0]
		next <- events[1] // the head and the comment come with the first event
	}()
	s := g.stream("/v1/chat/completions")
	s.expect(t, events[0]+annotatedOne)
	for _, e := range events[2:] {
		next <- e
		s.expect(t, e)
	}
	close(next)
	s.expectEnd(t)
}

func TestTerminators(t *testing.T) {
	tests := []struct {
		name, path, body string
		whole            bool
	}{
		{"done", "/v1/chat/completions", chunkOne + chunkDone, true},
		{"finish reason", "/v1/chat/completions", chunkOne + chunkStop, true},
		{"finish reason with space", "/v1/chat/completions", `data: {"choices":[{"finish_reason" : "length"}]}` + "\n\n", true},
		{"finish reason then usage", "/v1/chat/completions", chunkStop + `data: {"choices":[],"usage":{}}` + "\n\n", true},
		{"completions", "/v1/completions", `data: {"choices":[{"text":"x","finish_reason":"stop"}]}` + "\n\n", true},
		{"null finish reason", "/v1/chat/completions", chunkOne, false},
		{"finish reason in the text", "/v1/chat/completions", `data: {"choices":[{"delta":{"content":"\"finish_reason\":\"stop\""},"finish_reason":null}]}` + "\n\n", false},
		{"finish reason as the text", "/v1/chat/completions", `data: {"choices":[{"delta":{"content":"finish_reason"},"finish_reason":null}]}` + "\n\n", false},
		{"finish reason elsewhere", "/v1/chat/completions", `data: {"x":{"finish_reason":"stop"},"choices":[]}` + "\n\n", false},
		{"done in the text", "/v1/chat/completions", `data: {"a":"[DONE]"}` + "\n\n", false},
		{"message_stop", "/v1/messages", "event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", true},
		{"no message_stop", "/v1/messages", "event: message_start\ndata: {\"type\":\"message_start\"}\n\n", false},
		{"message_stop in the text", "/v1/messages", "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"message_stop\"}}\n\n", false},
		{"response.completed", "/v1/responses", "data: {\"type\":\"response.completed\"}\n\n", true},
		{"response.incomplete", "/v1/responses", "data: {\"type\":\"response.incomplete\"}\n\n", true},
		{"response.failed", "/v1/responses", "data: {\"response\":{},\"type\":\"response.failed\"}\n\n", true},
		{"a type named in another", "/v1/responses", "data: {\"type\":\"response.completed\",\"x\":\"message_stop\"}\n\n", true},
		{"two spaces", "/v1/chat/completions", `data:  {"choices":[{"finish_reason":"stop"}]}` + "\n\n", true},
		{"response.created", "/v1/responses", "data: {\"type\":\"response.created\"}\n\n", false},
		{"another family's: message_stop", "/v1/chat/completions", "data: {\"type\":\"message_stop\"}\n\n", true},
		{"another family's: finish reason", "/v1/messages", chunkOne + chunkStop, true},
		{"a final type further in", "/v1/responses", "data: {\"x\":{\"type\":\"response.completed\"},\"type\":\"response.created\"}\n\n", false},
		{"a final type only further in", "/v1/responses", "data: {\"x\":{\"type\":\"response.completed\"}}\n\n", false},
		{"a final type that is only a beginning", "/v1/responses", "data: {\"type\":\"response.completed.not\"}\n\n", false},
		{"final type with space", "/v1/messages", "data: { \"type\" : \"message_stop\" }\n\n", true},
		{"a path without terminators", "/v1/images/generations", "data: {\"type\":\"image\"}\n\n", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { chunks(conn, test.body) })
			g := start(t, oneModel, up.Address())
			a := g.post(test.path, request1)
			if broken := strings.Contains(a.body, `"type":"error"`) || strings.Contains(a.body, "upstream_stream_broken"); broken == test.whole || (a.err != nil) != broken {
				t.Errorf("%v %s", a.err, a.body)
			}
		})
	}
}

func TestBrokenStreams(t *testing.T) {
	cut := func(parts ...string) func(net.Conn, *upstreamtest.Recorded) {
		return func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, streamHead)
			for _, p := range parts {
				writeChunk(conn, p)
			}
			conn.Close()
		}
	}
	stall := func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, streamHead)
		writeChunk(conn, chunkOne)
		_, _ = io.Copy(io.Discard, conn)
	}
	tests := []struct {
		name, path string
		answer     func(net.Conn, *upstreamtest.Recorded)
		config     string
		want       string
	}{
		{"closed", "/v1/chat/completions", cut(chunkOne, chunkTwo), "", annotatedOne + chunkTwo + brokenEvent},
		{"closed inside an event", "/v1/chat/completions", cut(chunkOne, `data: {"id":"2`), "", annotatedOne + brokenEvent},
		{"ended inside an event", "/v1/chat/completions", func(conn net.Conn, _ *upstreamtest.Recorded) {
			chunks(conn, chunkOne, `data: {"id":"2"}`)
			conn.Close()
		}, "", annotatedOne + brokenEvent},
		{"stalled", "/v1/chat/completions", stall, "timeouts: {stream_idle: 50ms}\n", annotatedOne + brokenEvent},
		{"malformed chunks", "/v1/chat/completions", func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, streamHead)
			writeChunk(conn, chunkOne)
			_, _ = io.WriteString(conn, "zz\r\n")
			conn.Close()
		}, "", annotatedOne + brokenEvent},
		{"closed after the terminator", "/v1/chat/completions", cut(chunkOne, chunkStop), "", annotatedOne + chunkStop},
		{"too long", "/v1/chat/completions", stall, "timeouts: {stream_total: 50ms}\n", annotatedOne +
			`data: {"error":{"message":"the stream took longer than timeouts.stream_total; the answer is incomplete","type":"upstream_error","param":null,"code":"upstream_timeout"}}` + "\n\n"},
		{"Anthropic's", "/v1/messages", cut("event: message_start\ndata: {\"type\":\"message_start\"}\n\n"), "",
			"event: message_start\ndata: {" + ours + ",\"type\":\"message_start\"}\n\n" +
				"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"upstream up failed: its stream broke off\"}}\n\n"},
	}
	for _, responses := range []struct{ name, body, id, model, created, n, m string }{
		{"the Responses API's", `{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","created_at":17,"model":"m-1","status":"in_progress"}}` + "\n\n" +
			`data: {"type":"response.output_text.delta","sequence_number" : 41,"delta":"\"sequence_number\":99"}` + "\n\n", "resp_1", "m-1", "17", "42", "43"},
		{"the Responses API's, without numbers", `{"type":"x"}` + "\n\n", "", "", "0", "0", "1"},
		{"the Responses API's, with odd values", `{"type":"x","sequence_number":"9","response":{"id":7,"created_at":"x","model":"` + strings.Repeat("m", 300) + `"}}` + "\n\n", "", "", "0", "0", "1"},
	} {
		const message = "upstream up failed: its stream broke off"
		tests = append(tests, tests[0])
		test := &tests[len(tests)-1]
		test.name, test.path, test.answer = responses.name, "/v1/responses", cut("data: "+responses.body)
		test.want = "data: {" + ours + "," + responses.body[1:] +
			`event: error` + "\n" + `data: {"type":"error","code":"upstream_stream_broken","message":"` + message + `","param":null,"error":{"message":"` + message +
			`","type":"upstream_error","param":null,"code":"upstream_stream_broken"},"sequence_number":` + responses.n + "}\n\n" +
			`event: response.failed` + "\n" + `data: {"type":"response.failed","sequence_number":` + responses.m + `,"response":{"id":"` + responses.id +
			`","object":"response","created_at":` + responses.created + `,"status":"failed","error":{"code":"upstream_stream_broken","message":"` + message +
			`"},"incomplete_details":null,"instructions":null,"metadata":{},"model":"` + responses.model +
			`","output":[],"parallel_tool_calls":true,"temperature":null,"tool_choice":"auto","tools":[],"top_p":null,"usage":null}}` + "\n\n"
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, test.answer)
			g := start(t, oneModel+test.config, up.Address())
			a := g.post(test.path, request1)
			if a.status != 200 || a.body != test.want {
				t.Errorf("%d\ngot  %q\nwant %q", a.status, a.body, test.want)
			}
			// HTTP says it too, for clients that pass over events that they do not know.
			if whole := test.name == "closed after the terminator"; (a.err == nil) != whole || !whole && !errors.Is(a.err, io.ErrUnexpectedEOF) {
				t.Errorf("the body ended with %v", a.err)
			}
			if strings.Contains(a.body, "[DONE]") {
				t.Error("a cut stream looks complete")
			}
			<-up.Closed()
		})
	}
}

// TestNothingIsCommittedBeforeTheFirstEvent: a failure up to there is an HTTP error.
func TestNothingIsCommittedBeforeTheFirstEvent(t *testing.T) {
	write := func(text string) func(net.Conn, *upstreamtest.Recorded) {
		return func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	}
	hang := func(text string) func(net.Conn, *upstreamtest.Recorded) {
		return func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, text)
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	comment := "7\r\n: hello\r\n1\r\n\n\r\n"
	bad := func(says string) errorRow { return errorRow{502, "upstream_error", "", "upstream_error", says} }
	late := errorRow{504, "upstream_error", "", "upstream_timeout", "no answer in time"}
	tests := []struct {
		name   string
		answer func(net.Conn, *upstreamtest.Recorded)
		want   errorRow
	}{
		{"closed at once", write(streamHead), bad("broke off")},
		{"ended at once", write(streamHead + "0\r\n\r\n"), bad("broke off")},
		{"ended after a comment", write(streamHead + comment + "0\r\n\r\n"), bad("broke off")},
		{"silence", hang(streamHead), late},
		{"comments alone", hang(streamHead + comment), late},
		{"no head", hang(""), late},
		{"half an event", func(conn net.Conn, _ *upstreamtest.Recorded) { chunks(conn, `data: {"a`) }, bad("broke off")},
		{"a Responses API error event", func(conn net.Conn, _ *upstreamtest.Recorded) {
			chunks(conn, `data: {"type":"error","message":"theirs"}`+"\n\n")
		}, bad("an error in it")},
		{"an error event", func(conn net.Conn, _ *upstreamtest.Recorded) {
			chunks(conn, `data: {"error":{"message":"theirs"}}`+"\n\n")
		}, bad("an error in it")},
		{"Anthropic's error event", func(conn net.Conn, _ *upstreamtest.Recorded) {
			chunks(conn, "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n")
		}, bad("an error in it")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, test.answer)
			config := oneModel
			if test.want == late {
				config += "timeouts: {first_byte: 100ms}\n"
			}
			g := start(t, config, up.Address())
			test.want.check(t, g.post("/v1/chat/completions", request1))
		})
	}
	t.Run("an event that has an error of null", func(t *testing.T) {
		body := `data: {"error":null,"choices":[]}` + "\n\n"
		up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { chunks(conn, body, chunkDone) })
		g := start(t, oneModel, up.Address())
		if a := g.post("/v1/chat/completions", request1); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

// TestKeepAliveBeforeTheFirstEvent: after stream_keepalive of silence the head and comments
// go out, and a failure after that is an error event.
func TestKeepAliveBeforeTheFirstEvent(t *testing.T) {
	for scheme, secure := range map[string]*tls.Config{"http": nil, "https": testTLS} {
		t.Run(scheme, func(t *testing.T) { keptAliveBeforeTheFirstEvent(t, scheme, secure) })
	}
}

func keptAliveBeforeTheFirstEvent(t *testing.T, scheme string, secure *tls.Config) {
	next := make(chan string)
	up := upstreamtest.NewRawTLS(t, secure, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, streamHead)
		for part := range next {
			if part == "close" {
				conn.Close()
				return
			}
			writeChunk(conn, part)
		}
	})
	model := strings.Replace(oneModel, "http:", scheme+":", 1)
	g := startTCP(t, model+"timeouts: {stream_keepalive: 30ms, first_byte: 5s}\n", up.Address())
	s := g.stream("/v1/chat/completions")
	s.expect(t, sse.KeepAlive+sse.KeepAlive)
	next <- ": theirs\n"
	for line := ""; line != ": theirs\n"; {
		var err error
		if line, err = s.ReadString('\n'); err != nil || (line != ": theirs\n" && line != sse.KeepAlive) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	next <- chunkOne
	line := sse.KeepAlive
	for line == sse.KeepAlive {
		line, _ = s.ReadString('\n')
	}
	if line+"\n" != annotatedOne {
		t.Errorf("got %q", line)
	}
	next <- "close"
	rest, err := io.ReadAll(s)
	if got := strings.ReplaceAll(string(rest), sse.KeepAlive, ""); err != io.ErrUnexpectedEOF || got != "\n"+brokenEvent {
		t.Errorf("got %q, %v", got, err)
	}

	s = g.stream("/v1/chat/completions")
	s.expect(t, sse.KeepAlive)
	next <- "close"
	rest, err = io.ReadAll(s)
	if got := strings.ReplaceAll(string(rest), sse.KeepAlive, ""); err != io.ErrUnexpectedEOF || got != brokenEvent {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestAnswerDecidesWhetherItIsAStream, not the request.
func TestAnswerDecidesWhetherItIsAStream(t *testing.T) {
	up := upstreamtest.NewRaw(t, func(conn net.Conn, r *upstreamtest.Recorded) {
		if strings.Contains(string(r.Body), "stream") {
			_, _ = io.WriteString(conn, okReply)
		} else {
			chunks(conn, chunkOne, chunkDone)
		}
	})
	g := start(t, oneModel, up.Address())
	if a := g.post("/v1/chat/completions", request1); a.body != okAnnotated {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.post("/v1/chat/completions", `{"model":"m"}`); a.body != annotatedOne+chunkDone {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestPanicInAStream(t *testing.T) {
	g := start(t, oneModel, "127.0.0.1:1")
	s := g.p.acquireStream()
	s.r = &request{proxy: g.p}
	if err := s.panicked("x"); err != errPanic || !strings.Contains(g.log.String(), "TestPanicInAStream") {
		t.Errorf("%v %s", err, g.log)
	}
	s.reader.Reset(nil, 1<<20, s.idle, s.holds) // reading dereferences nil
	if err := s.readFirst(); err != errPanic {
		t.Errorf("a panic while waiting for the first event became %v", err)
	}
}

// TestPanicAtTheEndOfAStream: what was cut does not end as if it were whole, and is a failure of the gateway.
func TestPanicAtTheEndOfAStream(t *testing.T) {
	proceed := make(chan struct{})
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, typed("text/event-stream", "", chunkOne))
		<-proceed
		conn.Close()
	})
	g := start(t, oneModel+"access_log: true\n", up.Address())
	g.p.metrics.BrokenStreams = nil // so that counting it panics
	resp, err := g.open("POST", "/v1/chat/completions", request1)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	close(proceed)
	if body, err := io.ReadAll(resp.Body); string(body) != annotatedOne || err == nil {
		t.Errorf("%q %v", body, err)
	}
	eventually(t, "it is logged", func() bool { return strings.Contains(g.log.String(), `"error":"gateway_internal"`) })
	eventually(t, "all is given back", func() bool { return g.p.gate.InFlight() == 0 && g.held() == 0 })
}

// TestHeadOfAStreamHoweverTheServerWritesIt: with an answer before it still in the server's buffer,
// or larger than that buffer, it comes whole and in order.
func TestHeadOfAStreamHoweverTheServerWritesIt(t *testing.T) {
	var before, big int
	up := upstreamtest.NewRaw(t, func(conn net.Conn, r *upstreamtest.Recorded) {
		if !bytes.Contains(r.Body, []byte(`"stream":true`)) {
			_, _ = io.WriteString(conn, reply("200 OK", "text/plain", strings.Repeat("p", before)))
			return
		}
		_, _ = io.WriteString(conn, strings.Replace(streamHead, "\r\n\r\n", "\r\nX-Big: "+strings.Repeat("h", big)+"\r\n\r\n", 1))
		writeChunk(conn, chunkOne)
		writeChunk(conn, chunkDone)
		_, _ = io.WriteString(conn, "0\r\n\r\n")
	})
	g := startTCP(t, oneModel, up.Address())
	request := func(body string) string {
		return fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", g.secret, len(body), body)
	}
	plain, streamed := request(`{"model":"m"}`), request(`{"model":"m","stream":true}`)
	for _, before = range []int{1, 9_000, 15_000, 15_500, 15_900, 16_000, 16_100, 16_200, 16_384, 17_000} {
		for _, big = range []int{10, 9_000, 15_000, 15_700, 15_850, 16_200} {
			for _, pipelined := range []bool{false, true} {
				conn, err := g.dial(context.Background(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				br := bufio.NewReader(conn)
				text := streamed
				if pipelined {
					text = plain + streamed + plain + streamed
				}
				_, _ = io.WriteString(conn, text)
				for i := 0; i < strings.Count(text, "POST"); i++ {
					resp, err := http.ReadResponse(br, nil)
					if err != nil {
						t.Fatalf("%d, %d, pipelined %v: %v", before, big, pipelined, err)
					}
					body, err := io.ReadAll(resp.Body)
					if err != nil {
						t.Fatalf("%d, %d, pipelined %v: %v", before, big, pipelined, err)
					}
					want, header := annotatedOne+chunkDone, strings.Repeat("h", big)
					if pipelined && i%2 == 0 {
						want, header = strings.Repeat("p", before), ""
					}
					if string(body) != want || resp.Header.Get("X-Big") != header {
						if resp.StatusCode == 502 && big > 16_000 {
							break // longer than an upstream's head may be
						}
						t.Fatalf("%d, %d, pipelined %v: answer %d is %d %.100q", before, big, pipelined, i, resp.StatusCode, body)
					}
				}
				conn.Close()
			}
		}
	}
}

// TestStreamThatHasLostItsConnection: it owns the request, and what it writes fails.
func TestStreamThatHasLostItsConnection(t *testing.T) {
	g := start(t, oneModel, "127.0.0.1:1")
	s := g.p.acquireStream()
	s.heir.Lost()
	<-s.handed // the stream owns the request
	if err := s.writer.Write([]byte("x")); err == nil {
		t.Error("it can write without a head")
	}
}
