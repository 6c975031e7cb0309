package proxy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/growth"
	"sluice/internal/upstreamtest"
	"sluice/jsontext"
	"sluice/pool"
)

// encodings are what an answer may come in, by what its Content-Encoding says.
var encodings = []struct {
	name, coding string
	make         func(io.Writer) io.WriteCloser // nil: it stays as it is
	read         bool
}{
	{"none", "", nil, true},
	{"identity", "identity", nil, true},
	{"gzip", "gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, true},
	{"x-gzip", "X-GZip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, true},
	{"deflate", "deflate", func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }, true},
	{"raw deflate", "deflate", func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 6); return f }, true},
	{"brotli", "br", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, false},
	{"two", "gzip, gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, false},
	{"a lie", "gzip", nil, false},
}

// encode is text encoded, each part so that it can be decoded when it has come.
func encode(make func(io.Writer) io.WriteCloser, parts ...string) (encoded []string) {
	if make == nil {
		return parts
	}
	var b bytes.Buffer
	w := make(&b)
	for i, part := range parts {
		_, _ = io.WriteString(w, part)
		if i == len(parts)-1 {
			w.Close()
		} else {
			_ = w.(interface{ Flush() error }).Flush()
		}
		encoded = append(encoded, b.String())
		b.Reset()
	}
	return encoded
}

// TestUsageIsFoundWhateverTheAnswerIsCalled, and where it cannot be, or does not come, the key pays what was
// reserved and for what came. The bytes are the client's as they came.
func TestUsageIsFoundWhateverTheAnswerIsCalled(t *testing.T) {
	const limit = 100_000
	said := strings.Repeat("word", 500)
	plain := []string{`{"id":"x","choices":[{"message":{"content":"` + said, said + `"}}],`, `"usage":{"prompt_tokens":20,"completion_tokens":5}}`}
	stream := []string{textEvent, longTextEvent + textEvent, chunkStop, `data: {"choices":[{"index":1}],"usage":{"prompt_tokens":20,"completion_tokens":5}}` + "\n\n", chunkDone}
	for _, streamed := range []bool{false, true} {
		parts, own := plain, "application/json"
		if streamed {
			parts, own = stream, "text/event-stream"
		}
		for _, contentType := range []string{own, "", "text/plain", "application/octet-stream", "application/vnd.x+json"} {
			t.Run(fmt.Sprint(streamed, contentType), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					var list []*usageCase
					var answers []step
					for i := range encodings {
						for _, broken := range []bool{false, true} {
							c := &usageCase{contentType: contentType, encoding: i, streamed: streamed, broken: broken, parts: parts}
							list = append(list, c)
							answers = append(answers, c.answer())
						}
					}
					const config = "breaker: {failures: 1000}\n" + oneUpstream
					g, key, _ := counted(t, config, limit, answers...)
					for _, c := range list {
						before := g.usedTokens(key, limit)
						a := g.post("/v1/chat/completions", body(100, fmt.Sprintf(`"stream":%v,`, streamed)))
						g.wantNothingLeft()
						c.check(t, a, g.usedTokens(key, limit)-before)
					}
				})
			})
		}
	}
}

// usageCase is an answer in parts, of which the first two come if it is broken.
type usageCase struct {
	contentType      string
	encoding         int // of encodings
	streamed, broken bool
	parts            []string
	came             string // of the answer
}

func (c *usageCase) answer() step {
	e := encodings[c.encoding]
	encoded, header := encode(e.make, c.parts...), ""
	if e.coding != "" {
		header = "Content-Encoding: " + e.coding + "\r\n"
	}
	if c.broken {
		encoded = encoded[:2]
	}
	c.came = strings.Join(encoded, "")
	text := typed(c.contentType, header, encoded...)
	if c.broken {
		return upstreamtest.Break(text)
	}
	return upstreamtest.Say(text + "0\r\n\r\n")
}

// held reports whether the gateway holds the answer to its end.
func (c *usageCase) held(encoded bool) bool {
	if encoded {
		return strings.HasSuffix(c.contentType, "json")
	}
	return !c.streamed
}

func (c *usageCase) check(t *testing.T, a response, used int64) {
	t.Helper()
	e := encodings[c.encoding]
	encoded := e.coding != "" && e.coding != "identity"
	want := int64(25)
	status, body, ends := 200, c.came, !c.broken
	switch {
	case c.broken && c.held(encoded):
		status, want, ends = 502, 0, true // it was held, and nothing of it is the client's
	case c.broken && c.streamed && e.read:
		want = 100 + 1 + 4 + 1
	case c.broken && e.read:
		want = 100 + int64(len(c.parts[0]+c.parts[1]))/4
	case !e.read:
		want = 100 + int64(len(c.came))
	}
	got := strings.Replace(a.body, `"gateway":{"model":"m","upstream":"a","attempts":1},`, "", 1)
	if c.streamed && !encoded && c.broken { // it is told so
		got, _, _ = strings.Cut(got, `data: {"error":`)
	}
	if a.status != status || status == 200 && got != body || (a.err == nil) != ends {
		t.Errorf("%s, broken %v: %d %v: %d bytes, want %d %d: %.200q", e.name, c.broken, a.status, a.err, len(got), status, len(body), got)
	}
	if used != want {
		t.Errorf("%s, broken %v: %d tokens are used, want %d", e.name, c.broken, used, want)
	}
}

// TestEncodedAnswerIsJudged like any other, once it is held.
func TestEncodedAnswerIsJudged(t *testing.T) {
	for name, test := range map[string]struct {
		contentType, text string
		status            int
		trail             string
	}{
		"an error":             {"application/json", `{"error":{"message":"theirs","code":429}}`, 429, "m@a;429;0"},
		"an error of no code":  {"application/json", `{"error":{"message":"theirs"}}`, 502, "m@a;error_event;0"},
		"no choices":           {"application/json", `{"choices":[ ]}`, 502, "m@a;no_answer;0"},
		"a stream without end": {"text/event-stream", textEvent, 502, "m@a;response_broken;0"},
		"a stream":             {"text/event-stream", textEvent + chunkDone, 200, "m@a;200;0"},
		"an answer":            {"application/json", okBody, 200, "m@a;200;0"},
		"nothing":              {"application/json", "", 200, "m@a;200;0"},
		"lines":                {"application/json", `{"error":1}` + "\n" + `{"error":2}`, 200, "m@a;200;0"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				wire := strings.Join(encode(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, test.text), "")
				g, _ := startScripted(t, oneUpstream, map[string]steps{"a": {upstreamtest.Say(upstreamtest.Whole("200 OK", test.contentType, "Content-Encoding: gzip\r\n", wire))}})
				a := g.post("/v1/chat/completions", plainM)
				a.want(t, test.status, test.trail)
				if test.status != 502 && a.body != wire {
					t.Errorf("%q", a.body)
				}
				g.wantNothingLeft()
			})
		})
	}
}

// TestEncodedStreamWithoutEnd is cut where the client can see it, and passes as it comes until then.
func TestEncodedStreamWithoutEnd(t *testing.T) {
	proceed := make(chan struct{})
	parts := encode(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, textEvent, longTextEvent)
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		_, _ = io.WriteString(conn, typed("text/event-stream", "Content-Encoding: gzip\r\n", parts[0]))
		<-proceed
		writeChunk(conn, parts[1])
		_, _ = io.WriteString(conn, "0\r\n\r\n")
	})
	s := startTCP(t, oneModel, up.Address()).stream("/v1/chat/completions")
	s.expect(t, parts[0])
	close(proceed)
	s.expect(t, parts[1])
	if rest, err := io.ReadAll(s); len(rest) > 0 || err == nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// inspected is a request with an answer of that type and encoding, which is to be inspected.
func inspected(t testing.TB, g *gateway, contentType, coding string) *request {
	t.Helper()
	r := &request{proxy: g.p, snapshot: g.p.snapshot.Load(), route: &builtin[0], exchange: pool.Acquire()}
	r.exchange.Response.SetContentType(contentType)
	r.exchange.Response.SetContentEncoding(coding)
	t.Cleanup(func() { pool.Release(r.exchange) })
	return r
}

// TestBombIsNotDecoded: what decodes to a thousand times its bytes costs neither memory nor much time, and
// is charged by its bytes.
func TestBombIsNotDecoded(t *testing.T) {
	g := start(t, oneModel, "127.0.0.1:1")
	size := 32 << 20
	if upstreamtest.RaceDetector {
		size = 8 << 20 // of which far less may be decoded
	}
	for name, begin := range map[string]string{"an object": `{"x":"`, "a usage": `{"usage":{"x":"`, "many objects": `{}`, "an event": "data: ", "lines": "data: 1\n", "neither": "x", "space": " "} {
		t.Run(name, func(t *testing.T) {
			var wire bytes.Buffer
			w, _ := gzip.NewWriterLevel(&wire, gzip.BestSpeed)
			block := []byte(strings.Repeat(strings.Repeat(begin[len(begin)-1:], 1<<10), 1<<6))
			_, _ = io.WriteString(w, begin)
			for range size / len(block) {
				_, _ = w.Write(block)
			}
			w.Close()
			r := inspected(t, g, "application/json", "gzip")
			r.tokens.limited = true
			before := liveHeap()
			i := r.inspect(nil)
			for rest := wire.Bytes(); len(rest) > 0; {
				n := min(len(rest), 16<<10)
				i.see(rest[:n])
				rest = rest[n:]
			}
			if grown := liveHeap() - before; grown > 16<<20 {
				t.Errorf("%d MiB are held", grown>>20)
			}
			_ = i.end()
			if most := int64(freeText + textPerByte*wire.Len() + 64<<10); i.text > most || i.whole() {
				t.Errorf("%d bytes of %d were decoded, want at most %d", i.text, size, most)
			}
			r.guess(i, i.wire)
			if r.tokens.sent != int64(wire.Len()) {
				t.Errorf("it is taken for %d tokens, want %d", r.tokens.sent, wire.Len())
			}
			i.close()
		})
	}
}

// TestSkimFindsWhatWalkFinds, in whatever pieces the text comes.
func TestSkimFindsWhatWalkFinds(t *testing.T) {
	values := []string{`1`, `"x"`, `"a\"b:,{"`, ` {"usage":1, "error":[2,{"choices":[]}]} `, `[1,"]",{}]`, `null`, `[ ]`, `{"a":{"b":"}"}}`, `"\\"`, `true`}
	names := []string{`"usage"`, ` "error" `, `"type"`, "\n\"choices\"", `"us\u0061ge"`, `"other"`, `""`, `"usage "`, `"` + strings.Repeat("x", 1000) + `"`, `"\""`}
	for i, name := range names {
		for j, value := range values {
			other, last := names[(i+j+1)%len(names)], values[(i+j)%len(values)]
			for _, text := range []string{`{` + name + `:` + value + `}`, ` { ` + name + ` : ` + value + ` , ` + other + `:` + last + `} `, `{"a":{` + name + `:1},` + name + `:` + value + `,` + name + `:` + last + `}`, `[{` + name + `:` + value + `}]`, `{}`} {
				want, _ := topOf([]byte(text))
				for _, size := range []int{1, 2, 7, len(text)} {
					var s skim
					var got top
					for rest := []byte(text); len(rest) > 0; {
						n := min(size, len(rest))
						s.write(rest[:n], func(t *top) { got = *t })
						rest = rest[n:]
					}
					got.object = want.object
					if diff := cmp.Diff(want, got, cmp.AllowUnexported(top{})); diff != "" {
						t.Fatalf("%s by %d: %s", text, size, diff)
					}
				}
			}
		}
	}
}

// TestSkimTakesAnything without harm, and keeps little of it.
func TestSkimTakesAnything(t *testing.T) {
	for _, text := range []string{"}}}}", "]]]", `{"usage`, `{"usage":`, `{"usage":}`, `{:1}`, `{"\`, `{"usage\u00":1}`, `{,,,}`, "{]", `"`, `{"usage":{"a":[}`} {
		for range 3 {
			var s skim
			s.write([]byte(strings.Repeat(text, 1000)+`{"usage":1}`), func(*top) {})
			if len(s.value) > longestSkimmed || len(s.name) > 6*jsontext.LongestName {
				t.Errorf("%s: %d and %d bytes are kept", text, len(s.value), len(s.name))
			}
		}
	}
	var s skim
	s.write([]byte(`{"usage":"`+strings.Repeat("x", 1<<20)), nil)
	if len(s.value) > longestSkimmed {
		t.Errorf("%d bytes are kept", len(s.value))
	}
}

// TestUsageOfWhatPasses as it comes, since it is too large to be held, or may be lines.
func TestUsageOfWhatPasses(t *testing.T) {
	const limit = 1_000_000
	large := `{"choices":[{"message":{"content":"` + strings.Repeat("word", 50_000) + `"}}],"usage":{"prompt_tokens":20,"completion_tokens":5}}`
	for name, test := range map[string]struct {
		contentType, more, body string
		broken                  bool
		used                    int64
	}{
		"large":                {"application/json", "", large, false, 25},
		"large, and cut":       {"application/json", "", large[:100_000], true, 100 + 25_000},
		"large, of no type":    {"", "", large, false, 25},
		"lines":                {"application/x-ndjson", `"stream":true,`, `{"a":1}` + "\n" + `{"usage":{"total_tokens":7}}` + "\n", false, 7},
		"lines without":        {"application/x-ndjson", `"stream":true,`, `{"a":1}` + "\n" + `{"b":"abcdefgh"}` + "\n", false, 106},
		"a text, cut":          {"text/plain", "", strings.Repeat("word", 1000), true, 1100},
		"an object, cut":       {"text/plain", `"stream":true,`, `{"usage":{"total_tokens":7},"x":"` + strings.Repeat("word", 1000), true, 100 + 1008},
		"an object, not asked": {"text/plain", "", `{"usage":{"total_tokens":7}}`, false, 7},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				say := upstreamtest.Say(typed(test.contentType, "", test.body) + "0\r\n\r\n")
				if test.broken {
					say = upstreamtest.Break(typed(test.contentType, "", test.body))
				}
				g, key, _ := counted(t, "limits: {response: 64KiB}\n"+oneUpstream, limit, say)
				a := g.post("/v1/chat/completions", body(100, test.more))
				g.wantNothingLeft()
				if got := strings.Replace(a.body, `"gateway":{"model":"m","upstream":"a","attempts":1},`, "", 1); a.status != 200 || got != test.body || (a.err != nil) != test.broken {
					t.Errorf("%d %v: %d bytes, want %d", a.status, a.err, len(got), len(test.body))
				}
				if used := g.usedTokens(key, limit); used != test.used {
					t.Errorf("%d tokens are used, want %d", used, test.used)
				}
			})
		})
	}
}

// TestInspectionTakesLinearTime however its bytes come.
func TestInspectionTakesLinearTime(t *testing.T) {
	for name, make := range map[string]func(n int) string{
		"an object": func(n int) string { return `{"usage":{"x":"` + strings.Repeat("x", n) },
		"names":     func(n int) string { return "{" + strings.Repeat(`"a":1,`, n/6) },
		"objects":   func(n int) string { return strings.Repeat(`{"usage":1}`, n/11) },
		"nesting":   func(n int) string { return strings.Repeat(`{"":`, n/4) },
		"spaces":    func(n int) string { return strings.Repeat(" ", n) },
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, oneModel, "127.0.0.1:1")
			growth.Linear(t, name, func(n int) func() {
				text := []byte(make(n))
				r := inspected(t, g, "text/plain", "")
				return func() {
					i := r.inspect(nil)
					for rest := text; len(rest) > 0; {
						n := min(len(rest), 512)
						i.see(rest[:n])
						rest = rest[n:]
					}
					_ = i.end()
					i.close()
				}
			})
		})
	}
}
