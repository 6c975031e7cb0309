//go:build !race

// The race detector has sync.Pool drop what it is given.

package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/keys"
)

// repeater is both ends of a client's connection without a network: it says the same request
// again once it has read the answer, which ends with a Write. An upstream's is the same the
// other way round.
type repeater struct {
	net.Conn // nil: nothing else is called
	says     []byte
	left     int // how often still
	ready    bool
	rest     []byte
	heard    atomic.Int64 // bytes
	ended    chan struct{}
}

func (c *repeater) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		if !c.ready || c.left == 0 {
			return 0, io.EOF
		}
		c.rest, c.ready = c.says, false
		c.left--
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *repeater) Write(b []byte) (int, error) {
	c.heard.Add(int64(len(b)))
	c.ready = true
	return len(b), nil
}

func (c *repeater) Close() error {
	if c.ended != nil {
		close(c.ended)
		c.ended = nil
	}
	return nil
}

func (c *repeater) LocalAddr() net.Addr              { return new(net.TCPAddr) }
func (c *repeater) RemoteAddr() net.Addr             { return new(net.TCPAddr) }
func (c *repeater) SetDeadline(time.Time) error      { return nil }
func (c *repeater) SetReadDeadline(time.Time) error  { return nil }
func (c *repeater) SetWriteDeadline(time.Time) error { return nil }

// handed is a listener of connections that the test makes.
type handed chan net.Conn

func (h handed) Accept() (net.Conn, error) {
	if c, ok := <-h; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (h handed) Close() error {
	defer func() { _ = recover() }() // closed before
	close(h)
	return nil
}

func (h handed) Addr() net.Addr { return new(net.TCPAddr) }

// whole is a gateway whose client and upstream cost nothing: what a request takes is the
// gateway's own work and fasthttp's, without the kernel's.
type whole struct {
	*gateway
	clients handed
}

func startWhole(t testing.TB, config, answer string) *whole {
	t.Helper()
	clients := make(handed)
	dial := func(context.Context, string, string) (net.Conn, error) {
		return &repeater{says: []byte(answer), left: 1 << 60}, nil
	}
	g := startOn(t, config, "127.0.0.1:1", clients, dial)
	many, places, minute := int64(1_000_000_000), int64(1000), keys.Period(time.Minute)
	_, g.secret = g.key(keys.Spec{Name: "many", Limits: keys.Limits{Requests: &many, Period: &minute, Concurrent: &places}})
	return &whole{g, clients}
}

// run sends n requests with body over one connection and returns the bytes of an answer.
func (w *whole) run(n int, body string) int64 {
	c := &repeater{left: n, ready: true, ended: make(chan struct{}), says: fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\n"+
		"Host: gateway.test\r\nUser-Agent: sdk/1.2.3\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\nX-Stainless-Lang: python\r\nContent-Length: %d\r\n\r\n%s", w.secret, len(body), body)}
	ended := c.ended
	w.clients <- c
	<-ended
	return c.heard.Load() / int64(n)
}

var wholeAnswers = map[string]string{
	"plain":  reply("200 OK", "application/json", `{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"`+strings.Repeat("word ", 50)+`"}}]}`),
	"stream": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(streamEvents(20)) + "0\r\n\r\n",
}

// jsonAnswer is an answer with a text of size bytes.
func jsonAnswer(size int) string {
	return reply("200 OK", "application/json", `{"id":"x","choices":[{"message":{"content":"`+strings.Repeat("word ", size/5)+`"}}],"usage":{"prompt_tokens":9,"completion_tokens":9}}`)
}

func streamEvents(n int) string {
	return strings.Repeat(`data: {"id":"x","choices":[{"delta":{"content":"word"}}]}`+"\n\n", n) + "data: [DONE]\n\n"
}

// TestNothingIsAllocated: in steady state a request allocates nothing of the gateway's own from its
// first byte to its last. What remains is the server's: it drains the body with an io.LimitReader,
// and makes a stream's pipe.
func TestNothingIsAllocated(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which empties pools
	for name, most := range map[string]float64{"plain": 1, "stream": 15} {
		t.Run(name, func(t *testing.T) {
			w := startWhole(t, oneModel, wholeAnswers[name])
			w.run(100, chatBody)
			const n = 2000
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			w.run(n, chatBody)
			runtime.ReadMemStats(&after)
			if each := float64(after.Mallocs-before.Mallocs) / n; each > most+0.1 {
				t.Errorf("%.2f allocations a request", each)
			}
		})
	}
}

// BenchmarkRequest is a request from its first byte to its last, kernel and peers left out.
func BenchmarkRequest(b *testing.B) {
	body10K := strings.Replace(chatBody, "hi", strings.Repeat("word ", 2000), 1)
	for _, c := range []struct{ name, answer, body string }{
		{"300B", wholeAnswers["plain"], chatBody}, {"10KB", wholeAnswers["plain"], body10K}, {"stream", wholeAnswers["stream"], chatBody},
		{"answer=50KB", jsonAnswer(50 << 10), chatBody}, {"answer=1MB", jsonAnswer(1 << 20), chatBody}, {"answer=8MB", jsonAnswer(8 << 20), chatBody},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := startWhole(b, oneModel, c.answer)
			b.ReportAllocs()
			b.ResetTimer()
			w.run(b.N, c.body)
		})
	}
}

// BenchmarkRequestAmongModels is the same beside other models. (What other keys cost is in keys'
// BenchmarkLookup.)
func BenchmarkRequestAmongModels(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("models=%d", n), func(b *testing.B) {
			config := strings.Replace(oneModel, "models: {", "models: {"+manyModels(n-1), 1)
			w := startWhole(b, config, wholeAnswers["plain"])
			b.ResetTimer()
			w.run(b.N, chatBody)
		})
	}
}

func manyModels(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "m%d: {targets: [{upstream: up}]},\n", i)
	}
	return b.String()
}
