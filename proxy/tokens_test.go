package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/keys"
)

// counted is a gateway, and a key with a limit on tokens, for what is sent with which g.secret is set.
func counted(t *testing.T, text string, limit int64, list ...step) (*gateway, *keys.Key, *upstreamtest.Script) {
	t.Helper()
	g, hosts := startScripted(t, text, map[string][]step{"a": list})
	_, g.secret = g.key(keys.Spec{Name: "counted", Limits: keys.Limits{Tokens: &limit}})
	return g, g.keys.Lookup([]byte(g.secret)), hosts["a"]
}

const oneUpstream = `
retry: {max_retries: 0}
admin: {token: 0123456789abcdef}
upstreams: {a: {base_url: "http://a/v1"}}
models: {m: {targets: [{upstream: a}]}}
`

func (g *gateway) usedTokens(k *keys.Key, limit int64) int64 {
	return limit - g.left(k, "tokens").Remaining
}

// body is a request of exactly n*4 bytes, for n tokens.
func body(n int, more string) string {
	b := `{"model":"m",` + more + `"x":"` + `"}`
	return b[:len(b)-2] + strings.Repeat("y", 4*n-len(b)) + b[len(b)-2:]
}

// stream is an answer of those events.
func events(list ...string) step {
	return upstreamtest.Say(streamHead + chunked(strings.Join(list, "")) + "0\r\n\r\n")
}

const (
	textEvent      = `data: {"choices":[{"delta":{"content":"abcd"}}]}` + "\n\n"
	longTextEvent  = `data: {"choices":[{"delta":{"content":"abcdabcdabcdabcdabcd"}}]}` + "\n\n" // sixteen bytes, four tokens more
	usageEvent     = `data: {"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":5,"total_tokens":25}}` + "\n\n"
	anthropicStart = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n"
	anthropicText  = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"abcd\"}}\n\n"
	anthropicPing  = "event: ping\ndata: {\"type\": \"ping\"}\n\n"
	anthropicDelta = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":42}}\n\n"
	anthropicStop  = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
)

// TestTokensAreSettled by what the upstream says, in each API's way of saying it.
func TestTokensAreSettled(t *testing.T) {
	json := func(body string) step { return upstreamtest.Say(reply("200 OK", "application/json", body)) }
	for _, test := range []struct {
		name, path, more string
		answer           step
		used             int64
	}{
		{"chat", "/v1/chat/completions", `"max_tokens":500,`, json(`{"choices":[{}],"usage":{"prompt_tokens":7,"completion_tokens":11,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":3}}}`), 18},
		{"responses", "/v1/responses", `"max_output_tokens":500,`, json(`{"output":[],"usage":{"input_tokens":7,"output_tokens":11,"total_tokens":18}}`), 18},
		{"messages", "/v1/messages", `"max_tokens":500,`, json(`{"usage":{"input_tokens":7,"cache_creation_input_tokens":1000,"cache_read_input_tokens":100,"output_tokens":11},"content":[]}`), 1118},
		{"embeddings", "/v1/embeddings", ``, json(`{"data":[{"embedding":[` + strings.Repeat("0.1,", 3000) + `1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}`), 8},
		{"a total alone", "/v1/rerank", ``, json(`{"usage":{"total_tokens":33}}`), 33},
		{"usage at the beginning", "/v1/chat/completions", ``, json(`{"usage" : {"prompt_tokens":7,"completion_tokens":2},"x":"` + strings.Repeat("y", 5000) + `"}`), 9},
		{"usage in a text", "/v1/chat/completions", `"max_tokens":500,`, json(`{"choices":[{"message":{"content":"{\"usage\":{\"total_tokens\":1}}"}}]}`), 600},
		{"usage as a text", "/v1/chat/completions", `"max_tokens":500,`, json(`{"a":"usage","b":["usage",{"usage":null}],"usage":"none"}`), 600},
		{"usage of something else", "/v1/messages", ``, json(`{"content":[{"type":"tool_use","input":{"usage":{"input_tokens":9000}}}],"usage":{"input_tokens":10,"output_tokens":1}}`), 11},
		{"and behind it", "/v1/chat/completions", ``, json(`{"usage":{"prompt_tokens":7,"completion_tokens":2},"metadata":{"usage":{"total_tokens":1}}}`), 9},
		{"behind space", "/v1/chat/completions", ``, json("\n" + `{"usage":{"prompt_tokens":7,"completion_tokens":2}}`), 9},
		{"counts that are none", "/v1/chat/completions", `"max_tokens":500,`, json(`{"usage":{"prompt_tokens":-5,"completion_tokens":"many"}}`), 600},
		{"nothing said", "/v1/chat/completions", `"max_completion_tokens":300,`, json(okBody), 400},
		{"no JSON", "/v1/audio/speech", ``, upstreamtest.Say(reply("200 OK", "audio/mpeg", "\xff\xfb")), 100},
		{"an error", "/v1/chat/completions", `"max_tokens":500,`, status("400 Bad Request"), 0},
		{"a failure", "/v1/chat/completions", `"max_tokens":500,`, step{Dial: func(context.Context) error { return syscall.ECONNREFUSED }}, 0},
		{"a stream with usage", "/v1/chat/completions", `"stream":true,`, events(textEvent, chunkStop, usageEvent, chunkDone), 25},
		{"a stream without", "/v1/chat/completions", `"stream":true,`, events(textEvent, longTextEvent, chunkStop, chunkDone), 100 + 1 + 4 + 4},
		{"a stream without, and a cap", "/v1/chat/completions", `"stream":true,"max_tokens":500,`, events(textEvent, longTextEvent, chunkStop, chunkDone), 600},
		{"a stream that breaks off", "/v1/chat/completions", `"stream":true,`, events(textEvent, longTextEvent), 105},
		{"a stream that breaks off, and a cap", "/v1/chat/completions", `"stream":true,"max_tokens":500,`, events(textEvent, longTextEvent), 600},
		{"a stream that breaks off, longer than its cap", "/v1/chat/completions", `"stream":true,"max_tokens":2,`, events(textEvent, longTextEvent), 105},
		{"Anthropic's stream", "/v1/messages", `"stream":true,"max_tokens":500,`, events(anthropicStart, anthropicPing, anthropicText, anthropicDelta, anthropicStop), 9 + 100 + 42},
		{"Anthropic's, broken off", "/v1/messages", `"stream":true,"max_tokens":9,`, events(anthropicStart, anthropicPing, anthropicText, anthropicText, anthropicText), 9 + 100 + 3},
		{"Anthropic's, broken off, and a cap", "/v1/messages", `"stream":true,"max_tokens":500,`, events(anthropicStart, anthropicPing, anthropicText), 600},
		{"a long answer without", "/v1/chat/completions", ``, json(`{"choices":[{"message":{"content":"` + strings.Repeat("word", 1000) + `"}}]}`), 100 + 1010},
		{"a long answer of another gateway", "/v1/chat/completions", ``, json(`{"gateway":"` + strings.Repeat("word", 100) + `","choices":[{"message":{"content":"` + strings.Repeat("word", 1000) + `"}}]}`), 100 + 1010 + 13},
		{"a long answer without, on another path", "/v1/embeddings", ``, json(`{"data":["` + strings.Repeat("word", 1000) + `"]}`), 100},
		{"a long answer of no type", "/v1/chat/completions", ``, upstreamtest.Say(reply("200 OK", "text/plain", strings.Repeat("word", 1000))), 1100},
		{"a sound", "/v1/audio/speech", ``, upstreamtest.Say(reply("200 OK", "audio/mpeg", "\xff"+strings.Repeat("word", 1000))), 100},
		{"a sound that breaks off", "/v1/audio/speech", ``, upstreamtest.Break("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n\xff" + strings.Repeat("word", 1000)), 100},
		{"JSON that breaks off", "/v1/chat/completions", ``, upstreamtest.Break("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{\"usage\":{\"total_tokens\":7},"), 0},
		{"the Responses API's, broken off", "/v1/responses", `"stream":true,`, events(`data: {"type":"response.output_text.delta","delta":"abcd"}`+"\n\n",
			`data: {"type":"response.output_text.delta","delta":"abcd"}`+"\n\n", `data: {"type":"response.output_text.done","text":"`+strings.Repeat("abcd", 100)+`"}`+"\n\n"), 102},
		{"completions", "/v1/completions", `"stream":true,`, events(`data: {"choices":[{"text":"abcd"}]}`+"\n\n", `data: {"choices":[{"text":"abcdefgh"}]}`+"\n\n", chunkDone), 102},
		{"the Responses API's stream", "/v1/responses", `"stream":true,`, events(`data: {"type":"response.output_text.delta","delta":"a"}`+"\n\n",
			`data: {"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}}`+"\n\n"), 7},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				const limit = 10_000
				g, key, _ := counted(t, oneUpstream, limit, test.answer)
				a := g.post(test.path, body(100, test.more))
				g.wantNothingLeft()
				if used := g.usedTokens(key, limit); used != test.used {
					t.Errorf("%d tokens are used, want %d; %d %s", used, test.used, a.status, a.body)
				}
			})
		})
	}
}

// TestStreamsUsageIsAskedFor where the client did not, and taken out again.
func TestStreamsUsageIsAskedFor(t *testing.T) {
	for _, test := range []struct {
		name, config, path, options string
		sent                        string // in the upstream's request
		shown                       bool   // the chunk is the client's
	}{
		{"not asked", oneUpstream, "/v1/chat/completions", ``, `{"stream_options":{"include_usage":true},"model":"m"`, false},
		{"asked not to", oneUpstream, "/v1/chat/completions", `"stream_options":{"include_usage":false},`, `"stream_options":{"include_usage":true},"stream":true`, false},
		{"other options", oneUpstream, "/v1/chat/completions", `"stream_options" : {"include_obfuscation":false},`, `"stream_options":{"include_obfuscation":false,"include_usage":true},"stream":true`, false},
		{"asked in both ways", oneUpstream, "/v1/chat/completions", `"stream_options":{"include_usage":true,"x" : [1], "include\u005fusage":null},`, `"stream_options":{"x":[1],"include_usage":true},"stream":true`, false},
		{"too many options", oneUpstream, "/v1/chat/completions", `"stream_options":{"x":"` + strings.Repeat("x", 4<<10) + `"},`, `xx"},"stream":true`, true},
		{"null", oneUpstream, "/v1/chat/completions", `"stream_options":null,`, `"stream_options":{"include_usage":true},"stream":true`, false},
		{"asked", oneUpstream, "/v1/chat/completions", `"stream_options":{"include_usage":true},`, `{"model":"m","stream_options":{"include_usage":true},"stream":true`, true},
		{"of a wrong type", oneUpstream, "/v1/chat/completions", `"stream_options":[1],`, `{"model":"m","stream_options":[1],"stream":true`, true},
		{"an upstream that refuses it", strings.Replace(oneUpstream, "a: {", "a: {stream_usage: false, ", 1), "/v1/chat/completions", ``, `{"model":"m","stream":true`, true},
		{"another path", oneUpstream, "/v1/completions", ``, `{"model":"m","stream":true`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _, up := counted(t, test.config, 10_000, events(textEvent, chunkStop, usageEvent, chunkDone))
				a := g.post(test.path, body(1200, test.options+`"stream":true,`))
				if sent := string(up.Requests()[0].Body); !strings.Contains(sent, test.sent) {
					t.Errorf("sent %s", sent)
				}
				if strings.Contains(a.body, "prompt_tokens") != test.shown || !strings.HasSuffix(a.body, chunkDone) || !strings.Contains(a.body, "abcd") {
					t.Errorf("got %s", a.body)
				}
			})
		})
	}
	t.Run("a key without the limit", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			g, hosts := startScripted(t, oneUpstream, map[string]steps{"a": {events(textEvent, chunkStop, usageEvent, chunkDone)}})
			a := g.post("/v1/chat/completions", streamM)
			if sent := string(hosts["a"].Requests()[0].Body); sent != streamM || !strings.Contains(a.body, "prompt_tokens") {
				t.Errorf("sent %s, got %s", sent, a.body)
			}
		})
	})
}

// TestTokenLimit: what a refusal says, and that it costs nothing.
func TestTokenLimit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 1000
		g, key, up := counted(t, strings.Replace(oneUpstream, "admin:", "keys: {default_reservation: 50}\nadmin:", 1), limit, slow(0))
		_, err := g.keys.Update(key.Spec().ID, func(s *keys.Spec) error {
			ten := int64(10)
			s.Limits.Requests = &ten
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		a := g.post("/v1/chat/completions", body(100, `"max_tokens":500,`))
		if a.status != 200 || a.header.Get("X-Ratelimit-Limit-Tokens") != "1000" || a.header.Get("X-Ratelimit-Remaining-Tokens") != "400" {
			t.Errorf("%d %v", a.status, a.header)
		}
		a = g.post("/v1/chat/completions", body(100, `"max_tokens":301,`))
		errorRow{429, "rate_limit_error", "", "rate_limit_exceeded", "1000 tokens per 1m0s (limits.tokens); this request needs 401, of which 100 are for its body"}.check(t, a)
		if a.header.Get("X-Ratelimit-Remaining-Tokens") != "400" || a.header.Get("X-Ratelimit-Remaining-Requests") != "9" || a.header.Get("Retry-After") != "61" {
			t.Errorf("%v", a.header)
		}
		// Without a cap of its own it is the configured one; and the largest of several holds.
		if a = g.post("/v1/chat/completions", body(100, "")); a.header.Get("X-Ratelimit-Remaining-Tokens") != "250" {
			t.Errorf("%v", a.header)
		}
		if a = g.post("/v1/chat/completions", body(100, `"max_tokens":1,"max_completion_tokens":151,`)); a.status != 429 {
			t.Errorf("%d", a.status)
		}
		if got := g.send("GET", "/v1/key", ""); !strings.Contains(got.body, `"remaining":{"requests":8,"reset_requests":"60.953s","tokens":250,"reset_tokens":"60.953s"}`) {
			t.Errorf("%s", got.body)
		}
		time.Sleep(time.Minute + time.Second)
		// A reservation is never more than the limit.
		if a = g.post("/v1/chat/completions", body(100, `"max_tokens":1000000,`)); a.status != 200 || a.header.Get("X-Ratelimit-Remaining-Tokens") != "0" {
			t.Errorf("%d %v", a.status, a.header)
		}
		if n := len(up.Requests()); n != 3 {
			t.Errorf("%d requests went upstream", n)
		}
		// A refusal of the window gives the tokens back.
		time.Sleep(time.Minute + time.Second)
		for range 10 {
			g.post("/v1/chat/completions", `{"model":"m","max_tokens":0}`)
		}
		before := g.usedTokens(key, limit)
		if a = g.post("/v1/chat/completions", body(100, "")); a.status != 429 || !strings.Contains(a.body, "limits.requests") || g.usedTokens(key, limit) != before {
			t.Errorf("%s, %d and then %d used", a.body, before, g.usedTokens(key, limit))
		}
		g.wantNothingLeft()
	})
}

func TestPromptTokens(t *testing.T) {
	long := strings.Repeat("abcd", 1000)
	for text, want := range map[string]int64{
		"":      0,
		"abc":   1,
		"abcde": 2,
		`{"url":"data:image/png;base64,` + long + `"}`:        8,
		`{"url":"data:image\/png;base64,ab\/cd` + long + `"}`: 9,
		`{"type":"base64","data" : "` + long + `=="}`:         8,
		`{"data":"` + long + ` and words"}`:                   1006,
		`{"data":"short"}`:                                    4,
		`{"data":["` + long + `"]}`:                           1004,
		`{"data":"` + long:                                    1003,
		`;base64,` + long + `";base64,` + long + `" text that is text, and counts as such`: 14,
	} {
		if got := promptTokens([]byte(text)); got != want {
			t.Errorf("%.40s (%d bytes): %d, want %d", text, len(text), got, want)
		}
	}
}

// TestClientThatLeavesIsChargedWhatWasSent, or its prompt before anything was.
func TestClientThatLeavesIsChargedWhatWasSent(t *testing.T) {
	for name, test := range map[string]struct {
		events []string
		used   int64
	}{
		"before the first event": {nil, 100},
		"after some":             {[]string{textEvent, textEvent, longTextEvent}, 100 + 1 + 1 + 4},
	} {
		t.Run(name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
				_, _ = io.WriteString(conn, streamHead+chunked(strings.Join(test.events, "")))
				_, _ = io.Copy(io.Discard, conn)
				conn.Close()
			})
			g := startTCP(t, oneModel, up.Address())
			limit := int64(10_000)
			_, g.secret = g.key(keys.Spec{Name: "counted", Limits: keys.Limits{Tokens: &limit}})
			key := g.keys.Lookup([]byte(g.secret))
			conn := g.begin(body(100, `"stream":true,"max_tokens":5000,`))
			eventually(t, "it is asked", func() bool { return len(up.Requests()) == 1 })
			if len(test.events) > 0 {
				text, buf := "", make([]byte, 4096)
				for !strings.Contains(text, "abcdabcd") {
					n, err := conn.Read(buf)
					if err != nil {
						t.Fatal(err)
					}
					text += string(buf[:n])
				}
			}
			conn.Close()
			eventually(t, "it is settled", func() bool { return key.Unsettled() == 0 })
			if used := g.usedTokens(key, limit); used != test.used {
				t.Errorf("%d tokens are used, want %d", used, test.used)
			}
		})
	}
}

// TestTokensNeverOverAdmit: many at once, whose reservations together are more than the limit.
func TestTokensNeverOverAdmit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 1000
		g, key, up := counted(t, oneUpstream, limit, slow(time.Second))
		var wg sync.WaitGroup
		var mu sync.Mutex
		statuses := map[int]int{}
		for range 50 {
			wg.Go(func() {
				a := g.post("/v1/chat/completions", body(20, `"max_tokens":80,`))
				mu.Lock()
				defer mu.Unlock()
				statuses[a.status]++
			})
		}
		wg.Wait()
		if got := fmt.Sprint(statuses); got != "map[200:10 429:40]" || len(up.Requests()) != 10 || g.usedTokens(key, limit) != limit {
			t.Errorf("%s, %d went upstream, %d used", got, len(up.Requests()), g.usedTokens(key, limit))
		}
		g.wantNothingLeft()
	})
}

// TestOutputCap: however the number is written, and if it is there twice.
func TestOutputCap(t *testing.T) {
	g := start(t, oneModel, "127.0.0.1:1")
	for field, want := range map[string]int64{
		`"max_tokens":9000`: 9000, `"max_tokens":9000.0`: 9000, `"max_tokens":9e3`: 9000, `"max_tokens":0`: 0,
		`"max_tokens":99999999999999999999`: 1e9, `"max_tokens":1e999`: 1e9, `"max_tokens":-5`: 0, `"max_tokens":"9"`: 9, `"max_tokens":null`: 0,
		`"max_tokens":1,"max_tokens":9`: 1e9, `"max_tokens":1,"max_completion_tokens":7,"max_output_tokens":3`: 7,
		// As a string, for upstreams that read that as a number.
		`"max_tokens":"4096"`: 4096, `"max_tokens":" 4_096.0 "`: 4096, `"max_tokens":"4\u0030"`: 40, `"max_tokens":"1e999"`: 1e9, `"max_tokens":"many"`: 0, `"max_tokens":""`: 0,
		`"max_tokens":"NaN"`: 0, `"max_tokens":"-1"`: 0, `"max_tokens":true`: 0, `"max_tokens":{}`: 0, `"max_tokens":"` + strings.Repeat("0", 100) + `1"`: 1e9, `"max_tokens":"` + strings.Repeat(`\n`, 40) + `"`: 1e9,
		// For each of several answers.
		`"max_tokens":100,"n":4`: 400, `"n":4.0,"max_tokens":100`: 400, `"max_tokens":100,"n":"4"`: 400, `"max_tokens":"100","best_of":5,"n":2`: 500, `"max_tokens":100,"n":0`: 100,
		`"max_tokens":100,"n":null,"best_of":-3`: 100, `"max_tokens":100,"n":1e8`: 1e9, `"max_tokens":1000000000,"n":1000000000`: 1e9, `"max_tokens":1000000000,"n":1`: 1e9,
		`"max_tokens":100,"n":1e999`: 1e9, `"max_tokens":0,"n":5`: 0, `"max_tokens":100,"n":1,"n":2`: 1e9, `"n":[3]`: 0,
	} {
		r, _ := prepared(t, g, `{"model":"m",`+field+`}`)
		if f := r.readFields(); f != nil {
			t.Fatal(f.message)
		}
		if got := r.outputCap(); got != want {
			t.Errorf("%s: %d, want %d", field, got, want)
		}
		r.releaseStruct()
	}
}

// TestReservationOfSeveralAnswers: the cap counts for each, the default too.
func TestReservationOfSeveralAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _, _ := counted(t, strings.Replace(oneUpstream, "admin:", "keys: {default_reservation: 50}\nadmin:", 1), 10_000, slow(0))
		for _, test := range []struct{ more, left string }{
			{`"max_tokens":500,"n":3,`, "8400"},
			{`"n":2,`, "8200"},
			{`"max_tokens":"200","best_of":"5",`, "7100"},
		} {
			if a := g.post("/v1/completions", body(100, test.more)); a.header.Get("X-Ratelimit-Remaining-Tokens") != test.left {
				t.Errorf("%s: %d %v", test.more, a.status, a.header)
			}
		}
	})
}

// TestChunksThatSayMoreThanUsageStay, and options that are there twice are left alone.
func TestChunksThatSayMoreThanUsageStay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		odd := `data: {"choices":[],"error":{"message":"boom"},"usage":{"prompt_tokens":1,"completion_tokens":1}}` + "\n\n"
		g, _, up := counted(t, oneUpstream, 10_000, events(textEvent, odd, chunkStop, chunkDone))
		if a := g.post("/v1/chat/completions", body(100, `"stream":true,`)); !strings.Contains(a.body, "boom") {
			t.Errorf("%s", a.body)
		}
		twice := body(100, `"stream":true,"stream_options":{},"stream_options":{"include_usage":true},`)
		if a := g.post("/v1/chat/completions", twice); !strings.Contains(a.body, "boom") || string(up.Requests()[1].Body) != twice {
			t.Errorf("%s, sent %s", a.body, up.Requests()[1].Body)
		}
		g.post("/v1/chat/completions", body(100, `"stream":true,"stream_options":{"include_usage":false,"x":1,"include_usage":false},`))
		if sent := string(up.Requests()[2].Body); !strings.Contains(sent, `"stream_options":{"x":1,"include_usage":true}`) {
			t.Errorf("sent %s", sent)
		}
	})
}

// TestUsageChunkThatNobodyAskedFor stays at the gateway whatever else its upstream writes into it, and
// only if it is one.
func TestUsageChunkThatNobodyAskedFor(t *testing.T) {
	const counts = `"usage":{"prompt_tokens":20,"completion_tokens":5}`
	for _, test := range []struct {
		event string
		stays bool
	}{
		{`{"choices":[],` + counts + `}`, true},
		{`{"choices": [ ] ,` + counts + `}`, true},
		{`{"choices":null,` + counts + `}`, true},
		{`{"choices":{},` + counts + `}`, true},
		{`{` + counts + `}`, true},
		{`{"id":"x","choices":[],"provider":"p","x_groq":{"id":"y"},"time_info":[1],` + counts + `}`, true},
		{`{"choices":[],"error":null,` + counts + `}`, true},
		{`{"choices":[],"error":false,` + counts + `}`, true},
		{`{"choices":[],"error":{"message":"boom"},` + counts + `}`, false},
		{`{"error":"boom",` + counts + `}`, false},
		{`{"type":"message_delta",` + counts + `}`, false},
		{`{"delta":{"stop_reason":"end_turn"},` + counts + `}`, false},
		{`{"message":{},` + counts + `}`, false},
		{`{"response":{},` + counts + `}`, false},
		{`{"choices":[{"delta":{"content":"b"}}],` + counts + `}`, false},
		{`{"choices":"b",` + counts + `}`, false},
	} {
		t.Run(test.event, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				const limit = 10_000
				g, key, _ := counted(t, oneUpstream, limit, events(textEvent, chunkStop, "data: "+test.event+"\n\n", chunkDone))
				a := g.post("/v1/chat/completions", body(100, `"stream":true,`))
				if strings.Contains(a.body, test.event) == test.stays || !strings.HasSuffix(a.body, chunkDone) {
					t.Errorf("got %s", a.body)
				}
				if used := g.usedTokens(key, limit); test.stays && used != 25 {
					t.Errorf("%d tokens are used, want 25", used)
				}
			})
		})
	}
}
