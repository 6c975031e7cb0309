package proxy

import (
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"sluice/internal/growth"
	"sluice/internal/upstreamtest"
	"sluice/sse"
)

// TestEscapedNames: an upstream's names mean the same however they are written.
func TestEscapedNames(t *testing.T) {
	for data, want := range map[string]found{
		`{"typ\u0065":"message_stop"}`:                     {ends: true, last: true, usage: true},
		`{"type":"message\u005fstop"}`:                     {ends: true, last: true, usage: true},
		`{"choices":[{"finish\u005freason":"stop"}]}`:      {ends: true, usage: true},
		`{"choices":[{"finish\u005freason":null}]}`:        {usage: true},
		`{"x":"\u0041","choices":[{"finish_reason":"a"}]}`: {ends: true, usage: true},
	} {
		if got := look(&sse.Event{Data: []byte(data)}); got != want {
			t.Errorf("%s: %+v, want %+v", data, got, want)
		}
	}
	var u usage
	u.readEvent([]byte(`{"us\u0061ge":{"prompt\u005ftokens":3,"completion_tokens":4}}`))
	if u != (usage{3, 4}) {
		t.Errorf("%+v", u)
	}
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		chunks(conn, `data: {"\u0065rror":{"message":"theirs"}}`+"\n\n")
	})
	g := start(t, oneModel, up.Address())
	errorRow{502, "upstream_error", "", "upstream_error", "an error in it"}.check(t, g.post("/v1/chat/completions", request1))
}

func TestCountOf(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "12": 12, "12.0": 12, "1e3": 1000, "-1": 0, "null": 0, `"5"`: 0, "": 0, "1e400": 0} {
		if text == "1e400" {
			want = tokenCount([]byte("99999999999999999999"))
		}
		if got := tokenCount([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// denseEvents are events for which a parser would take a hundred times their size.
func denseEvents(size int) map[string]string {
	list := strings.Repeat("0,", size/2) + "0"
	return map[string]string{
		"no error":  `data: {"x":[` + list + `],"error":null}` + "\n\n",
		"finish":    `data: {"x":[` + list + `],"choices":[{"finish_reason":"stop"}]}` + "\n\n",
		"choices":   `data: {"choices":[` + strings.Repeat(`{"finish_reason":null},`, size/23) + `{"finish_reason":""}]}` + "\n\n",
		"type":      `data: {"x":[` + list + `],"type":"message_stop"}` + "\n\n",
		"usage":     `data: {"x":{},"usage":{"a":[` + list + `],"prompt_tokens":1,"completion_tokens":1}}` + "\n\n",
		"escaped":   `data: {"x":[` + list + `],"\u0065":1}` + "\n\n",
		"backslash": `data: {"x":"` + strings.Repeat(`\\`, size/2) + `","error":null}` + "\n\n",
	}
}

// TestEventsAreNotBuilt: what is kept after a large event, while its stream goes on, is a small part
// of it.
func TestEventsAreNotBuilt(t *testing.T) {
	const size = 2 << 20
	for name, event := range denseEvents(size) {
		t.Run(name, func(t *testing.T) {
			proceed := make(chan struct{})
			up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
				_, _ = io.WriteString(conn, streamHead)
				writeChunk(conn, event)
				writeChunk(conn, chunkTwo)
				<-proceed
				writeChunk(conn, chunkStop+chunkDone)
				_, _ = io.WriteString(conn, "0\r\n\r\n")
			})
			g := startTCP(t, oneModel, up.Address())
			before := liveHeap()
			s := g.stream("/v1/chat/completions")
			if _, err := io.CopyN(io.Discard, s, int64(len(event)+len(chunkTwo))); err != nil {
				t.Fatal(err)
			}
			if grown := liveHeap() - before; grown > 3*size {
				t.Errorf("%d KiB are held after an event of %d KiB", grown>>10, len(event)>>10)
			}
			close(proceed)
			_, _ = io.Copy(io.Discard, s)
		})
	}
}

// liveHeap is how many bytes of the heap are in use.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestEventsTakeLinearTime holds each loop over an event: its work grows with the bytes.
func TestEventsTakeLinearTime(t *testing.T) {
	for name := range denseEvents(1) {
		t.Run(name, func(t *testing.T) {
			growth.Linear(t, name, func(n int) func() {
				data := []byte(strings.TrimPrefix(denseEvents(n)[name], "data: "))
				s := &stream{event: sse.Event{Data: data}}
				var u usage
				return func() {
					look(&s.event)
					_ = s.refusal()
					u.readEvent(data)
				}
			})
		})
	}
}

// TestBeginningsTakeLinearTime: what drips is not looked at again and again.
func TestBeginningsTakeLinearTime(t *testing.T) {
	growth.Linear(t, "spaces", func(n int) func() {
		body := []byte("{" + strings.Repeat(" ", n))
		return func() {
			looked := 0
			for i := range body {
				if settled(body[:i+1], &looked) {
					t.Fatal("it is settled")
				}
			}
		}
	})
}

// TestDrippedSpaces: white space behind a brace is kept back only for so long, and a body of it passes
// as it is.
func TestDrippedSpaces(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"{" + strings.Repeat(" ", 1000) + `"a":1}`, "{" + ours + "," + strings.Repeat(" ", 1000) + `"a":1}`},
		{"{" + strings.Repeat(" ", 1000) + `}`, "{" + ours + strings.Repeat(" ", 1000) + `}`},
		{"{" + strings.Repeat(" ", 100_000) + `"a":1}`, "{" + strings.Repeat(" ", 100_000) + `"a":1}`},
		{"{" + strings.Repeat(" ", 1000), "{" + strings.Repeat(" ", 1000)},
		{"{", "{"},
	} {
		up := upstreamtest.NewRaw(t, upstreamtest.Reply(reply("200 OK", "text/plain", c.body)))
		g := start(t, oneModel, up.Address())
		if a := g.post("/v1/audio/speech", plainM); a.status != 200 || a.body != c.want || a.err != nil {
			t.Errorf("%.20q of %d bytes: %d, %.80q of %d, %v", c.body, len(c.body), a.status, a.body, len(a.body), a.err)
		}
	}
}
