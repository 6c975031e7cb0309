package proxy

import (
	"fmt"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

// TestSuccessThatIsNoAnswer is a failed attempt: it is retried or falls back, and with nothing left to
// try it is an HTTP error.
func TestSuccessThatIsNoAnswer(t *testing.T) {
	plain := func(body string) step { return upstreamtest.Say(reply("200 OK", "application/json", body)) }
	first := func(event string) step {
		return upstreamtest.Say(upstreamtest.Events(event+"\n\n") + upstreamtest.LastChunk)
	}
	const text = threeUpstreams + `
  m: {targets: [{upstream: a}], max_retries: 1, fallbacks: [n]}
  alone: {targets: [{upstream: a}], max_retries: 0}
  n: {targets: [{upstream: b}]}
retry: {base: 1ms, max: 1ms}
`
	for name, test := range map[string]struct {
		step   step
		trail  string // of the attempts at a, with a fallback behind
		status int    // of the model without one
		says   string
	}{
		"no body":               {plain(""), "200 no_answer twice", 502, "no answer in it"},
		"blank":                 {plain(" \r\n"), "200 no_answer twice", 502, "no answer in it"},
		"blank without a type":  {upstreamtest.Say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n "), "200 no_answer twice", 502, "no answer in it"},
		"not JSON":              {plain("<html>"), "200 no_answer twice", 502, "no answer in it"},
		"cut JSON":              {plain(`{"a":[1`), "200 no_answer twice", 502, "no answer in it"},
		"two values":            {plain(`{}{}`), "200 no_answer twice", 502, "no answer in it"},
		"an error":              {plain(`{"error":{"message":"theirs","code":"bad"}}`), "200 error_event twice", 502, "an error in it"},
		"an error with a 429":   {plain(`{"error":{"message":"theirs","code":429}}`), "429 twice", 429, "theirs"},
		"with a status in text": {plain(`{"error":{"message":"theirs","code":"503"}}`), "503 twice", 503, "theirs"},
		"with a 400":            {plain(`{"error":{"message":"theirs","code":400}}`), "over", 400, "theirs"},
		"with a 401":            {plain(`{"error":{"message":"theirs","code":401}}`), "401 onward", 502, "credential"},
		"with no status":        {plain(`{"error":{"message":"theirs","code":200}}`), "200 error_event twice", 502, "an error in it"},
		"OpenAI's type":         {plain(`{"error":{"message":"theirs","type":"invalid_request_error","code":"x"}}`), "over", 400, "theirs"},
		"no choices":            {plain(`{"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}`), "200 no_answer twice", 502, "no answer in it"},
		"choices of null":       {plain(`{"choices":null}`), "200 no_answer twice", 502, "no answer in it"},
		"choices of no type":    {plain(`{"choices":{ }}`), "200 no_answer twice", 502, "no answer in it"},
		"DONE alone":            {first("data: [DONE]"), "200 no_answer twice", 502, "no answer in it"},
		"a first event's 400":   {first(`data: {"error":{"message":"theirs","code":400}}`), "over", 400, `"gateway":{"model":"alone"`},
		"a first event's 429":   {first(`data: {"error":{"message":"theirs","status":429}}`), "429 twice", 429, "theirs"},
		"Anthropic's overload":  {first("event: error\ndata: " + `{"type":"error","error":{"type":"overloaded_error","message":"theirs"}}`), "529 twice", 529, "theirs"},
		"Anthropic's 404":       {first("event: error\ndata: " + `{"type":"error","error":{"type":"not_found_error","message":"theirs"}}`), "404 onward", 404, "theirs"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, hosts := startScripted(t, text, map[string]steps{"a": {test.step}, "b": {good}})
				a := g.post("/v1/chat/completions", `{"model":"alone","stream":true}`)
				if a.status != test.status || !strings.Contains(a.body, test.says) || a.header.Get("Content-Type") != "application/json" {
					t.Errorf("%d %s %v", a.status, a.body, a.header)
				}
				before := hosts["a"].Asked()
				a = g.post("/v1/chat/completions", `{"model":"m","stream":true}`)
				want := map[string]string{"over": "1 400", "401 onward": "1 200", "404 onward": "1 200"}[test.trail]
				if want == "" {
					want = "2 200"
				}
				if got := fmt.Sprint(hosts["a"].Asked()-before, a.status); got != want {
					t.Errorf("asked and answered %s, want %s: %s", got, want, a.header.Get("X-Sluice-Trail"))
				}
				g.wantNothingLeft()
			})
		})
	}
}

// TestSuccessThatIsAnAnswer however it looks.
func TestSuccessThatIsAnAnswer(t *testing.T) {
	for name, test := range map[string]struct{ path, answer string }{
		"204":                     {"/v1/chat/completions", "HTTP/1.1 204 No Content\r\n\r\n"},
		"no sound":                {"/v1/audio/speech", "HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 0\r\n\r\n"},
		"an error of null":        {"/v1/responses", reply("200 OK", "application/json", `{"error":null}`)},
		"an error of nothing":     {"/v1/responses", reply("200 OK", "application/json", `{"error":""}`)},
		"an error of false":       {"/v1/responses", reply("200 OK", "application/json", `{"error":false}`)},
		"an error further in":     {"/v1/responses", reply("200 OK", "application/json", `{"x":{"error":1}}`)},
		"an array":                {"/v1/embeddings", reply("200 OK", "application/json", `[1]`)},
		"choices elsewhere":       {"/v1/responses", reply("200 OK", "application/json", `{"choices":[]}`)},
		"no choices at all":       {"/v1/chat/completions", reply("200 OK", "application/json", `{"output":"x"}`)},
		"choices of another kind": {"/v1/completions", reply("200 OK", "application/json", `{"choices":"x"}`)},
		"an array of choices":     {"/v1/chat/completions", reply("200 OK", "application/json", `[{"choices":[]}]`)},
		"deeper than is followed": {"/v1/responses", reply("200 OK", "application/json", strings.Repeat("[", 400)+strings.Repeat("]", 400))},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, oneUpstream, map[string]steps{"a": {upstreamtest.Say(test.answer)}})
				if a := g.post(test.path, plainM); a.status/100 != 2 {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		})
	}
}

// TestEmptyChoicesAreRetriedOnce on each model, whatever it may be retried else, and are no failure for
// the breaker: what filters a request's answers says nothing of other requests.
func TestEmptyChoicesAreRetriedOnce(t *testing.T) {
	const text = threeUpstreams + `
  m: {targets: [{upstream: a}], max_retries: 5, fallbacks: [n]}
  n: {targets: [{upstream: b}], max_retries: 5}
retry: {base: 1ms, max: 1ms}
`
	empty := upstreamtest.Say(reply("200 OK", "application/json", `{"choices":[]}`))
	for name, test := range map[string]struct {
		a, b   steps
		status int
		asked  string // at a and at b
	}{
		"once":              {steps{empty, good}, steps{good}, 200, "2 0"},
		"twice":             {steps{empty}, steps{good}, 200, "2 1"},
		"everywhere":        {steps{empty}, steps{empty}, 502, "2 2"},
		"beside failures":   {steps{status("503 No"), empty, status("503 No"), empty, good}, steps{good}, 200, "4 1"},
		"and then an error": {steps{empty}, steps{empty, status("404 No")}, 404, "2 2"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, hosts := startScripted(t, text, map[string]steps{"a": test.a, "b": test.b})
				a := g.post("/v1/chat/completions", plainM)
				if got := fmt.Sprint(hosts["a"].Asked(), hosts["b"].Asked()); a.status != test.status || got != test.asked {
					t.Errorf("%d, asked %s, want %d and %s: %s", a.status, got, test.status, test.asked, a.header.Get("X-Sluice-Trail"))
				}
				g.wantNothingLeft()
			})
		})
	}
	inBubble(t, func(t *testing.T) {
		g, _ := startScripted(t, oneUpstream, map[string]steps{"a": {empty}})
		for range 6 {
			g.post("/v1/chat/completions", plainM)
		}
		if state := g.p.Set().Models["m"].Targets[0].Status().Breaker; state != "closed" {
			t.Errorf("the breaker is %s", state)
		}
	})
}

// TestErrorWithinAStream counts as one, though the stream goes on to its end.
func TestErrorWithinAStream(t *testing.T) {
	for name, test := range map[string]struct {
		path, event string
		open        bool
	}{
		"without a status": {"/v1/chat/completions", `data: {"error":{"message":"theirs"}}`, true},
		"a 500":            {"/v1/chat/completions", `data: {"error":{"code":500}}`, true},
		"a 429":            {"/v1/chat/completions", `data: {"error":{"code":429}}`, false},
		"Responses":        {"/v1/responses", `data: {"type":"response.failed","response":{"error":{"code":"server_error"}}}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, oneUpstream, map[string]steps{"a": {events(textEvent, test.event+"\n\n", chunkDone)}})
				for range 5 {
					if a := g.post(test.path, streamM); a.status != 200 || a.err != nil || !strings.Contains(a.body, test.event) {
						t.Fatalf("%d %v %s", a.status, a.err, a.body)
					}
				}
				g.wantNothingLeft()
				if errors := fmt.Sprintf("%s", g.lastErrors()); !strings.Contains(errors, `"error":"upstream_stream_broken"`) {
					t.Errorf("%s", errors)
				}
				if state := g.p.Set().Models["m"].Targets[0].Status().Breaker; (state != "closed") != test.open {
					t.Errorf("the breaker is %s", state)
				}
			})
		})
	}
}
