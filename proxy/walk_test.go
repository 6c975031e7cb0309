package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/sse"
)

// TestWalkIsWhatDecodingSays: the member that a walk finds is the one that decoding the object
// gives, however its name is written.
func TestWalkIsWhatDecodingSays(t *testing.T) {
	names := []string{`"error"`, `"\u0065rror"`, `"erro\u0072"`, `"\u0065\u0072\u0072\u006F\u0072"`, `"errors"`, `"err\"or"`, `"e\u00e9"`, `""`}
	shapes := []string{`{%s:1}`, ` { %s : {"error":2} , "b":[1,{}]}`, `{"a":{%s:1}}`, `{"error":3,%s:4}`, `{%[1]s:5,%[1]s:6}`, `[%s]`, `{%s:`, `{%s:1`, `{%s:1}x`, `{"a":tru,%s:1}`, `{}`, ``}
	for _, shape := range shapes {
		for _, name := range names {
			text := fmt.Sprintf(shape, name)
			if !strings.Contains(shape, "%") {
				text = shape
			}
			var decoded map[string]json.RawMessage
			_ = json.Unmarshal([]byte(text), &decoded)
			if got, want := string(memberOf([]byte(text), "error")), string(decoded["error"]); got != want {
				t.Errorf("%s: %q, decoded it is %q", text, got, want)
			}
			if _, named := decoded["error"]; named && !mayName([]byte(text), errorMember) {
				t.Errorf("%s: the name is not found", text)
			}
		}
	}
}

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
	errorRow{502, "upstream_error", "", "upstream_error", "began with an error"}.check(t, g.post("/v1/chat/completions", request1))
}

func TestCountOf(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "12": 12, "12.0": 12, "1e3": 1000, "-1": 0, "null": 0, `"5"`: 0, "": 0, "1e400": 0} {
		if text == "1e400" {
			want = countOf([]byte("99999999999999999999"))
		}
		if got := countOf([]byte(text)); got != want {
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
			linear(t, func(n int) func() {
				data := []byte(strings.TrimPrefix(denseEvents(n)[name], "data: "))
				s := &stream{event: sse.Event{Data: data}}
				var u usage
				return func() {
					look(&s.event)
					_ = s.isError()
					u.readEvent(data)
				}
			})
		})
	}
}

// linear fails if what work makes for four times the size takes far more than four times as long.
// Each is the best of several runs, in turn, so that a busy machine slows both.
func linear(t *testing.T, work func(n int) func()) {
	t.Helper()
	const size = 256 << 10
	small, large := work(size), work(4*size)
	var ratio float64
	for range 5 { // other work on the machine can spoil a round
		least := [2]time.Duration{1 << 62, 1 << 62}
		for range 5 {
			for i, run := range [...]func(){small, large} {
				began := time.Now()
				run()
				least[i] = min(least[i], time.Since(began))
			}
		}
		if ratio = float64(least[1]) / float64(least[0]); ratio < 8 { // 4, or 16 for the square
			return
		}
	}
	t.Errorf("four times the bytes take %.1f times as long", ratio)
}
