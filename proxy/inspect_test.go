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

	"sluice/internal/growth"
	"sluice/internal/upstreamtest"
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
		for _, contentType := range []string{own, "", "text/plain", "application/octet-stream", "text/html; charset=utf-8", "application/vnd.x+json"} {
			for _, e := range encodings {
				for _, broken := range []bool{false, true} {
					t.Run(fmt.Sprint(streamed, contentType, e.name, broken), func(t *testing.T) {
						inBubble(t, func(t *testing.T) {
							encoded := encode(e.make, parts...)
							header := ""
							if e.coding != "" {
								header = "Content-Encoding: " + e.coding + "\r\n"
							}
							said := upstreamtest.Say(typed(contentType, header, encoded...) + "0\r\n\r\n")
							if broken {
								encoded = encoded[:2]
								said = upstreamtest.Break(typed(contentType, header, encoded...))
							}
							g, key, _ := counted(t, oneUpstream, limit, said)
							a := g.post("/v1/chat/completions", body(100, fmt.Sprintf(`"stream":%v,`, streamed)))
							g.wantNothingLeft()

							came := strings.Join(encoded, "")
							got := strings.Replace(a.body, `"gateway":{"model":"m","upstream":"a","attempts":1},`, "", 1)
							holds := !streamed && (strings.HasSuffix(contentType, "json") || e.coding == "" || e.coding == "identity")
							used, want := g.usedTokens(key, limit), [2]int64{25, 25}
							switch isOne := e.coding == "" || e.coding == "identity"; {
							case broken && (holds || e.coding != "" && !isOne && strings.HasSuffix(contentType, "json")):
								came, want = got, [2]int64{0, 0} // it is an error
								if a.status != 502 {
									t.Errorf("%d", a.status)
								}
							case broken && streamed && isOne:
								came, want = got, [2]int64{100 + 1 + 4 + 1, 100 + 1 + 4 + 1}
								if !strings.HasPrefix(got, textEvent+longTextEvent+textEvent+`data: {"error"`) {
									t.Errorf("%q", got)
								}
							case broken && streamed && e.read:
								want = [2]int64{100 + 1 + 4 + 1, 100 + 1 + 4 + 1}
							case broken && e.read:
								text := int64(len(parts[0]+parts[1])) / 4
								want = [2]int64{100 + text, 100 + text}
							case !e.read:
								want = [2]int64{100 + int64(len(came)), 100 + int64(len(came))}
							}
							if got != came || (a.err != nil) != (broken && a.status == 200) {
								t.Errorf("%d %v: %d bytes, want %d: %.200q", a.status, a.err, len(got), len(came), got)
							}
							if used < want[0] || used > want[1] {
								t.Errorf("%d tokens are used, want %d to %d", used, want[0], want[1])
							}
						})
					})
				}
			}
		}
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
	const size = 256 << 20
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
					if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
						t.Fatalf("%s by %d:\ngot  %q\nwant %q", text, size, got, want)
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
			if len(s.value) > longestSkimmed || len(s.name) > 6*longestName {
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
