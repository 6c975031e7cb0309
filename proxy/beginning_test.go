package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

func TestBeginningOf(t *testing.T) {
	for text, want := range map[string]beginning{
		"": notBegun, " \r\n\t": notBegun,
		"{": anObject, " \n{}": anObject, "\t{": anObject,
		"data:": anEvent, "data: {": anEvent, "event: x": anEvent, "id:": anEvent, "retry: 1": anEvent, ":": anEvent, ": hello": anEvent,
		"\n\ndata: x": anEvent, "\r\n: x": anEvent, "\xEF\xBB\xBF": anEvent, "\xEF\xBB\xBFdata:": anEvent, "\n: OPENROUTER PROCESSING": anEvent,
		" data:": somethingElse, "\n\t: x": somethingElse, "\xEF\xBB\xBF{}": somethingElse, "\xEF\xBB": somethingElse,
		"da": somethingElse, "data": somethingElse, "dat a:": somethingElse, "database": somethingElse, "idea": somethingElse,
		"[1]": somethingElse, "\xff\xfb": somethingElse, "<html>": somethingElse, "RIFF": somethingElse,
	} {
		if got := beginningOf([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
		// In pieces, a piece more each time, it is the same once it has begun.
		rd := reading{events: true}
		for end := 1; end < len(text) && rd.beginning == notBegun; end++ {
			rd.begin([]byte(text[:end]))
		}
		if rd.begin([]byte(text)); want == anObject && rd.beginning != want {
			t.Errorf("%q in pieces: %d", text, rd.beginning)
		}
	}
}

// typed is an answer in chunks under a type, "" for none.
func typed(contentType, header string, chunks ...string) string {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + header)
	if contentType != "" {
		b.WriteString("Content-Type: " + contentType + "\r\n")
	}
	b.WriteString("\r\n")
	for _, c := range chunks {
		writeChunk(&b, c)
	}
	return b.String()
}

var wrongTypes = []string{"", "text/plain; charset=utf-8", "application/octet-stream", "application/json", "application/x-ndjson", "text/html"}

// TestStreamUnderAnotherType is a stream like any other: annotated, watched for its end, and ended by
// an error event without one.
func TestStreamUnderAnotherType(t *testing.T) {
	for _, contentType := range wrongTypes {
		for _, lead := range []string{"", "\n", "\xEF\xBB\xBF", ": hello\n\n", "event: x\n", "id: 7\n", "retry: 1\n"} {
			t.Run(contentType+lead, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					whole := typed(contentType, "", lead+chunkOne, chunkTwo, chunkStop+chunkDone) + "0\r\n\r\n"
					closed := strings.NewReplacer("Transfer-Encoding: chunked", "Connection: close").Replace(typed(contentType, "")) + lead + chunkOne + chunkDone
					g, _ := startScripted(t, oneUpstream, map[string]steps{"a": {
						upstreamtest.Say(whole), upstreamtest.Say(whole), upstreamtest.Break(typed(contentType, "", lead+chunkOne, chunkTwo)), upstreamtest.Break(closed),
					}})
					first := lead + strings.Replace(chunkOne, "{", `{"gateway":{"model":"m","upstream":"a","attempts":1},`, 1)
					for i, want := range []string{first + chunkTwo + chunkStop + chunkDone, first + chunkTwo + chunkStop + chunkDone, first + chunkTwo + `data: {"error":{`, first + chunkDone} {
						a := g.post("/v1/chat/completions", []string{streamM, plainM, streamM, streamM}[i])
						cut := strings.HasSuffix(want, "error\":{")
						if a.status != 200 || (a.body != want && !(cut && strings.HasPrefix(a.body, want))) || (a.err != nil) != cut {
							t.Errorf("%d: %d %v\ngot  %q\nwant %q", i, a.status, a.err, a.body, want)
						}
						if h := a.header; h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-cache" || h.Get("Content-Length") != "" {
							t.Errorf("%d: %v", i, h)
						}
					}
					g.wantNothingLeft()
				})
			})
		}
	}
}

// TestFirstEventUnderAnotherType fails the attempt if it is an error, and falls back if there is none.
func TestFirstEventUnderAnotherType(t *testing.T) {
	const text = threeUpstreams + `
  m: {targets: [{upstream: a}], max_retries: 0, fallbacks: [n]}
  n: {targets: [{upstream: b}]}
`
	for name, first := range map[string]step{
		"an error":  upstreamtest.Say(typed("text/plain", "", `data: {"error":{"message":"theirs"}}`+"\n\n") + "0\r\n\r\n"),
		"DONE":      upstreamtest.Say(typed("text/plain", "", "data: [DONE]\n\n") + "0\r\n\r\n"),
		"comments":  upstreamtest.Break(typed("text/plain", "", ": wait\n\n", ": wait\n\n")),
		"silence":   upstreamtest.Stall(typed("text/plain", "", ": wait\n\n")),
		"no byte":   upstreamtest.Stall(typed("text/plain", "")),
		"an object": upstreamtest.Say(typed("text/event-stream", "", `{"error":{"message":"theirs"}}`) + "0\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, text, map[string]steps{"a": {first}, "b": {good}})
				began := time.Now()
				if a := g.post("/v1/chat/completions", streamM); a.status != 200 || a.header.Get("X-Sluice-Model") != "n" {
					t.Errorf("%d %s %s", a.status, a.body, a.header.Get("X-Sluice-Trail"))
				}
				if took := time.Since(began); took > 61*time.Second { // timeouts.first_byte
					t.Errorf("it took %v", took)
				}
				g.wantNothingLeft()
			})
		})
	}
}

// TestEventUnderAnotherTypeIsNotHeldBack: it is the client's before the next is sent.
func TestEventUnderAnotherTypeIsNotHeldBack(t *testing.T) {
	for _, contentType := range wrongTypes {
		t.Run(contentType, func(t *testing.T) {
			proceed := make(chan struct{})
			up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
				_, _ = io.WriteString(conn, typed(contentType, "", chunkOne))
				for _, event := range []string{chunkTwo, chunkStop, chunkDone} {
					<-proceed
					writeChunk(conn, event)
				}
				_, _ = io.WriteString(conn, "0\r\n\r\n")
			})
			s := startTCP(t, oneModel, up.Address()).stream("/v1/chat/completions")
			s.expect(t, annotatedOne)
			for _, event := range []string{chunkTwo, chunkStop, chunkDone} {
				proceed <- struct{}{}
				s.expect(t, event)
			}
			if rest, err := io.ReadAll(s); len(rest) > 0 || err != nil {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

// TestTextThatBeginsLikeAStream passes as it came where texts are answers.
func TestTextThatBeginsLikeAStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const text = "data: what is measured\n"
		g, _ := startScripted(t, oneUpstream, map[string]steps{"a": {upstreamtest.Say(reply("200 OK", "text/plain", text))}})
		if a := g.post("/v1/audio/speech", plainM); a.status != 200 || a.body != text || a.header.Get("Content-Type") != "text/plain" {
			t.Errorf("%d %q %v", a.status, a.body, a.header)
		}
	})
}

// TestObjectUnderAnotherType is a plain answer: annotated, and a failed attempt if it is an error or
// breaks off.
func TestObjectUnderAnotherType(t *testing.T) {
	const member = `{"gateway":{"model":"m","upstream":"a","attempts":1},`
	const object = `{"id":"x","choices":[{}]}`
	for _, test := range []struct {
		name, contentType, request string
		wire                       func(contentType string) step
		status                     int
		body, trail                string
	}{
		{"whole", "text/event-stream", streamM, say(object), 200, member + object[1:], "m@a;200;0"},
		{"whole, and not asked for a stream", "text/event-stream", plainM, say(object), 200, member + object[1:], "m@a;200;0"},
		{"behind lines", "text/event-stream", streamM, say("\r\n\n" + object), 200, "\r\n\n" + object, "m@a;200;0"},
		{"an error", "text/event-stream", streamM, say(`{"error":{"message":"theirs","code":429}}`), 429, member + `"error":{"message":"theirs","code":429}}`, "m@a;429;0"},
		{"cut", "text/event-stream", streamM, say(object[:9]), 502, "", "m@a;no_answer;0"},
		{"broken off", "text/event-stream", streamM, breaks(object), 502, "", "m@a;response_broken;0"},
		{"no choices", "text/event-stream", streamM, say(`{"choices":[]}`), 502, "", "m@a;no_answer;0"},
		{"text: whole", "text/plain", plainM, say(object), 200, member + object[1:], "m@a;200;0"},
		{"text: an error", "text/plain", plainM, say(`{"error":{"message":"theirs","code":429}}`), 429, member + `"error":{"message":"theirs","code":429}}`, "m@a;429;0"},
		{"text: broken off", "", plainM, breaks(object), 502, "", "m@a;response_broken;0"},
		{"text: no JSON", "text/plain", plainM, say("{hello"), 200, member + "hello", "m@a;200;0"},
		{"text: no choices", "application/octet-stream", plainM, say(`{"choices":[]}`), 502, "", "m@a;no_answer;0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, oneUpstream, map[string]steps{"a": {test.wire(test.contentType)}})
				a := g.post("/v1/chat/completions", test.request)
				a.want(t, test.status, test.trail)
				if test.body != "" && a.body != test.body {
					t.Errorf("%q, want %q", a.body, test.body)
				}
				want := test.contentType
				if want == "text/event-stream" || a.status == 502 {
					want = "application/json"
				}
				if got := a.header.Get("Content-Type"); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				g.wantNothingLeft()
			})
		})
	}
}

// say is an answer in one chunk, and breaks one that breaks off behind it.
func say(body string) func(string) step {
	return func(contentType string) step { return upstreamtest.Say(typed(contentType, "", body) + "0\r\n\r\n") }
}

func breaks(body string) func(string) step {
	return func(contentType string) step { return upstreamtest.Break(typed(contentType, "", body)) }
}

// TestLinesOfJSONAreNotHeldBack: a client that asked for a stream may be sent one of another kind.
func TestLinesOfJSONAreNotHeldBack(t *testing.T) {
	proceed := make(chan struct{})
	const line = `{"done":false}` + "\n"
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, typed("application/x-ndjson", "", line))
		<-proceed
		writeChunk(conn, line)
		_, _ = io.WriteString(conn, "0\r\n\r\n")
	})
	s := startTCP(t, oneModel, up.Address()).stream("/v1/chat/completions")
	s.expect(t, "{"+ours+","+line[1:])
	close(proceed)
	s.expect(t, line)
}
