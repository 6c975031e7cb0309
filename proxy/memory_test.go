package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/keys"
)

const twoBodies = oneModel + "limits: {body: 8MiB, memory: 16MiB}\n"

// TestMemoryIsBounded: bodies that go beyond limits.memory are refused before they are read, small
// ones are not, and all is given back.
func TestMemoryIsBounded(t *testing.T) {
	proceed := make(chan struct{})
	up := upstreamtest.NewRaw(t, func(conn net.Conn, r *upstreamtest.Recorded) {
		if len(r.Body) > 1<<20 {
			<-proceed
		}
		_, _ = io.WriteString(conn, okReply)
	})
	g := startTCP(t, twoBodies, up.Address())
	big := `{"model":"m","x":"` + strings.Repeat("y", 7<<20) + `"}`
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { right(t)(0, g.post("/v1/chat/completions", big)) })
	}
	eventually(t, "both are upstream", func() bool { return len(up.Requests()) == 2 })
	if held := g.held(); held < 14<<20 || held > 16<<20 {
		t.Errorf("%d bytes are held", held)
	}
	a := g.post("/v1/chat/completions", big)
	errorRow{503, "overloaded_error", "", "overloaded", "limits.memory"}.check(t, a)
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("%v", a.header)
	}
	// Who asks first is told before the body is sent.
	if got := g.raw(fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", g.secret, len(big))); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("%.100q", got)
	}
	if a := g.post("/v1/chat/completions", plainM); a.status != 200 {
		t.Errorf("a small one gets %d %s", a.status, a.body)
	}
	// One whose length is not known is refused when it has grown too large.
	req, _ := http.NewRequest("POST", "http://gateway.test/v1/chat/completions", io.MultiReader(strings.NewReader(big)))
	req.Header.Set("Authorization", "Bearer "+g.secret)
	if resp, err := g.client.Do(req); err != nil || resp.StatusCode != 503 {
		t.Errorf("%v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	close(proceed)
	wg.Wait()
	eventually(t, "all is given back", func() bool { return g.held() == 0 })
	if a := g.post("/v1/chat/completions", big); a.status != 200 {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// TestAnnouncedBytesHoldNothing: memory follows what arrives.
func TestAnnouncedBytesHoldNothing(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := startTCP(t, twoBodies, up.Address())
	for range 10 {
		conn, err := net.Dial("tcp", g.ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n{", g.secret, 8<<20)
	}
	// The first two are promised what they have announced, for a second; the others are refused.
	eventually(t, "bodies have begun", func() bool { return g.p.gate.InFlight() > 0 })
	eventually(t, "the promises have ended", func() bool { return g.held() < 1<<20 })
	if a := g.post("/v1/chat/completions", `{"model":"m","x":"`+strings.Repeat("y", 7<<20)+`"}`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestAnswersCountToo: what is held for slow clients stays within its part of limits.memory, and
// what finds no room there passes as it comes. All are whole.
func TestAnswersCountToo(t *testing.T) {
	const limit, clients = 16 << 20, 8
	answer := `{"x":"` + strings.Repeat("y", 6<<20) + `"}`
	for name, text := range map[string]string{
		"length":  reply("200 OK", "application/json", answer),
		"chunked": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(answer) + "0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			wire := []byte(text)
			up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { _, _ = conn.Write(wire) })
			g := startTCP(t, oneModel+"limits: {body: 8MiB, memory: 16MiB}\ntimeouts: {client: {write: 60s}}\n", up.Address())
			before := liveHeap()
			var answers [clients]*http.Response
			for i := range answers {
				conn := g.begin(plainM)
				_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
				var err error // once its head is there, an answer is held or passes, and nobody reads on
				if answers[i], err = http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
					t.Fatal(err)
				}
			}
			if held := g.held(); held < limit/4 || held > limit*3/4 {
				t.Errorf("%d bytes are held", held)
			}
			if grown := liveHeap() - before; grown > 2*limit {
				t.Errorf("the heap has grown by %d MiB", grown>>20)
			}
			// There is room for what clients send.
			if a := g.post("/v1/chat/completions", `{"model":"m","x":"`+strings.Repeat("y", 1<<20)+`"}`); a.status != 200 {
				t.Errorf("%d %.100s", a.status, a.body)
			}
			want := strings.Replace(answer, "{", "{"+ours+",", 1)
			for _, resp := range answers {
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
					t.Errorf("%d bytes of %d, %v", len(body), len(want), err)
				}
			}
			eventually(t, "all is given back", func() bool { return g.held() == 0 })
		})
	}
}

// TestAnnouncedAnswersHoldNothing: memory for an answer follows what arrives of it.
func TestAnnouncedAnswersHoldNothing(t *testing.T) {
	for _, contentType := range []string{"application/json", "text/plain"} {
		up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n{", contentType, 20<<20)
			_, _ = io.Copy(io.Discard, conn)
		})
		g := startTCP(t, oneModel, up.Address())
		conn := g.begin(plainM)
		eventually(t, "the answer has begun", func() bool { return len(up.Requests()) == 1 })
		for range 20 {
			if held := g.held(); held > 256<<10 {
				t.Errorf("%s: %d bytes are held for one", contentType, held)
			}
			runtime.Gosched()
		}
		conn.Close()
	}
}

// TestLongEventsCount: an event that finds no room in limits.memory ends its stream, and says so.
func TestLongEventsCount(t *testing.T) {
	long := `data: {"id":"` + strings.Repeat("x", 8<<20) + `"}` + "\n\n"
	for name, events := range map[string][]string{"first": {long}, "later": {chunkOne, long}} {
		t.Run(name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { chunks(conn, events...) })
			g := startTCP(t, oneModel+"limits: {body: 8MiB, memory: 16MiB}\n", up.Address())
			a := g.post("/v1/chat/completions", request1)
			if name == "first" {
				errorRow{503, "overloaded_error", "", "overloaded", "limits.memory"}.check(t, a)
			} else if a.status != 200 || !strings.HasPrefix(a.body, annotatedOne) || !strings.Contains(a.body, `"code":"overloaded"`) || strings.Contains(a.body, "xxx") {
				t.Errorf("%d %.300s", a.status, a.body)
			}
			eventually(t, "all is given back", func() bool { return g.held() == 0 })
			if n := up.Accepted(); n != 1 {
				t.Errorf("the upstream was asked %d times", n)
			}
		})
	}
}

// TestSlowReadersGiveUpTheirPlace when memory is short: what is held for one that takes a little now
// and then is given back.
func TestSlowReadersGiveUpTheirPlace(t *testing.T) {
	text := `{"x":"` + strings.Repeat("y", 13<<20) + `"}`
	answer := reply("200 OK", "application/json", text)
	event := upstreamtest.Events("data: "+text+"\n\n", chunkDone) + upstreamtest.LastChunk
	for _, c := range []struct {
		name, answer, memory string
		pause                time.Duration // for each 64 KiB
		whole                bool
	}{
		{"an answer", answer, "24MiB", 3 * time.Second, false},
		{"an answer, fast enough", answer, "24MiB", time.Second, true},
		{"an answer, with memory to spare", answer, "1GiB", 3 * time.Second, true},
		{"an event", event, "31MiB", 3 * time.Second, false},
		{"an event, fast enough", event, "31MiB", time.Second, true},
		{"an event, with memory to spare", event, "1GiB", 3 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				up := upstreamtest.NewScript(t, nil, upstreamtest.Say(c.answer))
				g := startInMemory(t, oneModel+"limits: {body: 1MiB, memory: "+c.memory+"}\ntimeouts: {stream_keepalive: 1h, client: {write: 30s}}\naccess_log: true\n",
					"127.0.0.1:1", up.Dial)
				conn := g.begin(request1)
				total, buf := 0, make([]byte, 64<<10)
				for total < len(text) {
					n, err := conn.Read(buf)
					if total += n; err != nil {
						break
					}
					time.Sleep(c.pause)
				}
				if total >= len(text) != c.whole {
					t.Errorf("%d bytes of %d came", total, len(text))
				}
				g.wantNothingLeft()
				if left := strings.Contains(g.log.String(), `"error":"caller_left"`); left == c.whole {
					t.Errorf("%s", g.log)
				}
				conn.Close()
			})
		})
	}
}

// TestRecycledBuffersCount like new ones.
func TestRecycledBuffersCount(t *testing.T) {
	proceed := make(chan struct{})
	up := upstreamtest.NewRaw(t, func(conn net.Conn, r *upstreamtest.Recorded) {
		if r.Header.Get("X-Wait") != "" {
			<-proceed
		}
		_, _ = io.WriteString(conn, okReply)
	})
	g := startTCP(t, twoBodies, up.Address())
	var wg sync.WaitGroup
	for i, size := range []int{200 << 10, 7 << 20} {
		text := `{"model":"m","x":"` + strings.Repeat("y", size) + `"}`
		for range 3 {
			right(t)(0, g.post("/v1/chat/completions", text))
		}
		before := g.held()
		wg.Go(func() { right(t)(0, g.post("/v1/chat/completions", text, "X-Wait", "yes")) })
		eventually(t, "it waits", func() bool { return len(up.Requests()) == 4*(i+1) })
		if held := g.held() - before; held < int64(size) || held > 2*int64(size) {
			t.Errorf("a body of %d counts for %d", size, held)
		}
	}
	close(proceed)
	wg.Wait()
}

// TestAFieldCannotTakeMemory: what is parsed takes many times its bytes, and is small.
func TestAFieldCannotTakeMemory(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	limit := int64(1_000_000_000)
	_, g.secret = g.key(keys.Spec{Name: "counted", Limits: keys.Limits{Tokens: &limit}})
	many := strings.Repeat("0,", 1<<20) + "0"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a := g.post("/v1/chat/completions", `{"model":"m","gateway":{"models":[`+many+`]}}`)
	errorRow{400, "invalid_request_error", "gateway", "invalid_gateway_field", "at most 16384 bytes"}.check(t, a)
	if a := g.post("/v1/chat/completions", `{"model":"m","stream":true,"stream_options":{"x":[`+many+`]}}`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.post("/v1/chat/completions", `{"model":"`+strings.Repeat(`\u0061`, 1<<20)+`"}`); a.status != 400 || !strings.Contains(a.body, "at most 65536 bytes") {
		t.Errorf("%d %s", a.status, a.body)
	}
	runtime.ReadMemStats(&after)
	if grown := after.HeapSys - before.HeapSys; grown > 150<<20 && after.HeapSys > before.HeapSys {
		t.Errorf("three requests took %d MiB", grown>>20)
	}
}

// TestLongNamesLeaveNothing: a name with an escape in it, of which nothing can be ours, is decoded
// nowhere, and no request keeps what it has read of a large one.
func TestLongNamesLeaveNothing(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel+"limits: {body: 12MiB}\n", up.Address())
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // what is pooled survives one
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	long := strings.Repeat(`x`, 2_400_000)
	before := heap()
	bodies := []string{`{"model":"m","\u0061` + long + `":1}`, `{"model":"m","a":{"\u0061` + long + `":1}}`, `{"model":"m","\"` + long + `":1}`,
		`{"model":"m","stream":true,"stream_options":{"\u0061` + long + `":1}}`, `{"model":"m","gateway":{"\u0061` + long + `":1}}`, `{"model":"\u0061` + long + `"}`,
		`{"model":"m","gateway":{"models":["m",` + strings.Repeat(`"\u006d",`, 14) + `"\u006d"]}}`, `{"model":"m","max_tokens":"` + long + `","n":"\u0031"}`}
	requests := make([]*request, 16)
	for i := range requests {
		requests[i], _ = prepared(t, g, "")
	}
	for i, r := range requests {
		r.body = []byte(bodies[i%len(bodies)])
		r.key = g.keys.Lookup([]byte(g.secret))
		r.tokens.limited = true
		if f := r.readFields(); f == nil {
			r.TokensNeeded()
			r.rewrite(nil, r.snapshot.set.Models["m"].Targets[0])
		} else if i%len(bodies) < 4 {
			t.Fatal(f.message)
		}
		r.releaseStruct()
	}
	bodies = nil
	// They are held here, so that nothing of theirs goes with the pool that they are in.
	if kept := heap() - before; kept > 1<<20 {
		t.Errorf("%d requests keep %d KiB", len(requests), kept>>10)
	}
	runtime.KeepAlive(requests)
}
