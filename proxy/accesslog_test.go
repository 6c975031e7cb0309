package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/keys"
)

// lines are the access log's so far, once all of it has been written.
func (g *gateway) lines() (list []map[string]any) {
	g.t.Helper()
	time.Sleep(time.Second) // the access log has written by then
	synctest.Wait()
	for line := range strings.Lines(g.log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			g.t.Fatalf("%s: %v", line, err)
		}
		if m["msg"] == "request" {
			list = append(list, m)
		}
	}
	return list
}

// TestAccessLog: one line a request, with all that is known of it.
func TestAccessLog(t *testing.T) {
	const withUsage = `{"choices":[1],"usage":{"prompt_tokens":7,"completion_tokens":2}}`
	for _, test := range []struct {
		name, path, body string
		answer           step
		want             string // members, in this order
	}{
		{"plain", "/v1/chat/completions", plainM, step{Answer: func(conn net.Conn, _ *upstreamtest.Recorded) {
			time.Sleep(1500 * time.Millisecond)
			_, _ = io.WriteString(conn, reply("200 OK", "application/json", withUsage))
		}}, "status=200 method=POST path=/v1/chat/completions model=m upstream=a trail=m@a;200;1500 bytes_in=13 bytes_out=117 tokens_in=7 tokens_out=2 first_byte=1.5 total=1.5 overhead=0"},
		{"stream", "/v1/chat/completions", streamM, events(textEvent, usageEvent, chunkDone),
			"status=200 stream=true bytes_in=27 tokens_in=20 tokens_out=5 overhead=0"},
		{"passes through", "/v1/audio/speech", plainM, upstreamtest.Say(reply("200 OK", "audio/mpeg", strings.Repeat("x", 100_000))), "status=200 bytes_out=100000"},
		{"upstream's error", "/v1/chat/completions", plainM, status("404 No"), "status=404 error=caller_rejected trail=m@a;404;0"},
		{"upstream's limit", "/v1/chat/completions", plainM, status("429 No"), "status=429 error=upstream_status"},
		{"no answer", "/v1/chat/completions", plainM, upstreamtest.Say("nonsense\r\n\r\n"), "status=502 error=upstream_failed trail=m@a;malformed_response;0"},
		{"broken stream", "/v1/chat/completions", streamM, events(textEvent), "status=200 stream=true error=upstream_stream_broken"},
		{"no JSON", "/v1/chat/completions", "{", slow(0), "status=400 error=caller_invalid bytes_in=1"},
		{"no such model", "/v1/chat/completions", `{"model":"x"}`, slow(0), "status=404 error=caller_unknown_model"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, "access_log: true\n"+oneUpstream, map[string]steps{"a": {test.answer}})
				made, secret := g.key(keys.Spec{Name: "logged"})
				a := g.post(test.path, test.body, "Authorization", "Bearer "+secret)
				list := g.lines()
				if len(list) != 1 {
					t.Fatalf("%d lines", len(list))
				}
				line := list[0]
				for member := range strings.SplitSeq(test.want, " ") {
					name, want, _ := strings.Cut(member, "=")
					if got := fmt.Sprint(line[name]); got != want {
						t.Errorf("%s is %s, want %s", name, got, want)
					}
				}
				if !strings.Contains(test.want, "error=") && line["error"] != nil {
					t.Errorf("error is %v", line["error"])
				}
				if line["key"] != made.ID || line["request_id"] != a.header.Get("X-Request-Id") || line["time"] == nil || line["total"] == nil {
					t.Errorf("%v", line)
				}
				if strings.Contains(fmt.Sprint(line), secret) {
					t.Error("the secret is in it")
				}
			})
		})
	}
}

// TestOverheadIsTheGatewaysOwnTime: not what it waited for.
func TestOverheadIsTheGatewaysOwnTime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, "access_log: true\nretry: {base: 1s, max: 1s}\n"+full+"  m: {targets: [{upstream: a}]}\n",
			map[string]steps{"a": {slow(2 * time.Second), status("500 No"), slow(time.Second)}})
		var wg sync.WaitGroup
		g.busy(&wg, 2, g.secret, right(t)) // the second waits for its turn, and then between its attempts
		wg.Wait()
		for _, line := range g.lines() {
			if line["overhead"] != 0.0 {
				t.Errorf("%v", line)
			}
		}
	})
}

func TestAccessLogIsSampled(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, "access_log: 0.25\n"+oneUpstream, map[string]steps{"a": {slow(0)}})
		for range 400 {
			g.post("/v1/chat/completions", plainM)
		}
		if n := len(g.lines()); n < 50 || n > 150 { // a hundred on average, with a deviation of nine
			t.Errorf("%d of 400", n)
		}
	})
}

// TestMetricsOfARequest: what the access log says, added up.
func TestMetricsOfARequest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		withUsage := step{Answer: func(conn net.Conn, _ *upstreamtest.Recorded) {
			time.Sleep(2 * time.Second)
			_, _ = io.WriteString(conn, reply("200 OK", "application/json", `{"choices":[1],"usage":{"prompt_tokens":7,"completion_tokens":2}}`))
		}}
		twoSecondsApart := step{Answer: func(conn net.Conn, _ *upstreamtest.Recorded) {
			_, _ = io.WriteString(conn, streamHead+chunked(textEvent))
			for _, later := range []string{": a comment\n\n", textEvent} {
				time.Sleep(time.Second)
				_, _ = io.WriteString(conn, chunked(later))
			}
			conn.Close()
		}}
		g, _ := startScripted(t, "retry: {base: 1s, max: 1s}\n"+strings.Replace(oneUpstream, "retry: {max_retries: 0}\n", "", 1),
			map[string]steps{"a": {status("500 No"), withUsage, status("404 No"), twoSecondsApart}})
		g.post("/v1/chat/completions", plainM)
		g.post("/v1/chat/completions", plainM)
		g.post("/v1/chat/completions", streamM)
		g.post("/v1/chat/completions", `{"model":"nope"}`)
		g.wantNothingLeft()
		g.wantSeries(
			`sluice_attempts_total{model="m",upstream="a"} 4`,
			`sluice_tokens_total{direction="in",model="m",upstream="a"} 7`,
			`sluice_tokens_total{direction="out",model="m",upstream="a"} 2`,
			`sluice_errors_total{kind="caller_rejected"} 1`,
			`sluice_errors_total{kind="upstream_stream_broken"} 1`,
			`sluice_errors_total{kind="caller_unknown_model"} 1`,
			`sluice_errors_total{kind="gateway_internal"} 0`,
			`sluice_first_byte_seconds_count{model="m",upstream="a"} 3`,
			`sluice_overhead_seconds_bucket{model="m",upstream="a",le="1e-05"} 3`,
			`sluice_event_interval_seconds_sum{model="m",upstream="a"} 2`,
			`sluice_event_interval_seconds_count{model="m",upstream="a"} 1`,
			`sluice_upstream_waiting{upstream="a"} 0`,
			`sluice_memory_limit_bytes 1.099511627776e+12`,
		)
	})
}

// keptEach is how many of the last errors there are of each kind.
const keptEach = 10

// lastErrors are those, as JSON.
func (g *gateway) lastErrors() (lines []json.RawMessage) {
	g.t.Helper()
	for _, e := range g.p.recorder.LastErrors() {
		line, err := json.Marshal(e)
		if err != nil {
			g.t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// TestLastErrors: the newest of each kind, with why; a flood of one kind leaves the others alone.
func TestLastErrors(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, oneUpstream, map[string]steps{"a": {status("404 No"), slow(0), upstreamtest.Say("nonsense\r\n\r\n")}})
		g.post("/v1/chat/completions", plainM)
		g.post("/v1/chat/completions", plainM)
		time.Sleep(time.Second)
		for range 500 {
			g.post("/v1/chat/completions", "{\"model\":\"a\\u0001\\\"b\"}")
			time.Sleep(10 * time.Millisecond)
		}
		g.post("/v1/chat/completions", plainM)
		g.wantNothingLeft()
		var got []string
		for _, line := range g.lastErrors() {
			var e struct{ Error, Trail, Message, Cause string }
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.Join([]string{e.Error, e.Trail, e.Message, e.Cause}, "|"))
		}
		if len(got) != keptEach+2 || !strings.HasPrefix(got[0], "upstream_failed|m@a;") || strings.HasSuffix(got[0], "|") ||
			!strings.HasPrefix(got[1], "caller_unknown_model||") || !strings.Contains(got[1], `"a\x01\"b"`) || got[keptEach+1] != "caller_rejected|m@a;404;0||" {
			t.Errorf("%d: %q", len(got), got)
		}
	})
}
