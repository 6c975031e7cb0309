package proxy

import (
	"strings"
	"testing"
)

// TestErrorInsideAStream: an error that the upstream sends after the first event is one for the breaker, the
// access log, the metrics and the last errors, however cleanly the stream then ends. The client gets that
// error and no second one.
func TestErrorInsideAStream(t *testing.T) {
	const chat, messages, responses = "/v1/chat/completions", "/v1/messages", "/v1/responses"
	const openAIs = `data: {"error":{"message":"sesame","type":"server_error"}}` + "\n\n"
	const created = `data: {"type":"response.created","response":{"error":null}}` + "\n\n"
	for _, test := range []struct {
		name, path string
		events     []string
		kind       string // "" for a success
		opens      bool   // five of them open the breaker
	}{
		{"then the end", chat, []string{textEvent, openAIs}, "upstream_stream_broken", true},
		{"then a terminator", chat, []string{textEvent, openAIs, "data: [DONE]\n\n"}, "upstream_stream_broken", true},
		{"by its name", chat, []string{textEvent, "event: error\ndata: sesame\n\n"}, "upstream_stream_broken", true},
		{"in a last chunk", chat, []string{textEvent, `data: {"error":{"code":502},"choices":[{"finish_reason":"error"}]}` + "\n\n"}, "upstream_stream_broken", true},
		{"on a path without terminators", "/v1/rerank", []string{textEvent, openAIs}, "upstream_stream_broken", true},
		{"Anthropic's", messages, []string{anthropicStart, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n"}, "upstream_stream_broken", true},
		{"of the Responses API", responses, []string{created, `data: {"type":"error","code":"server_error"}` + "\n\n"}, "upstream_stream_broken", true},
		{"a failed response", responses, []string{created, `data: {"type":"response.failed","response":{}}` + "\n\n"}, "upstream_stream_broken", true},
		{"an incomplete response", responses, []string{created, `data: {"type":"response.incomplete","response":{}}` + "\n\n"}, "", false},
		{"the request's own fault", chat, []string{textEvent, strings.Replace(openAIs, "server_error", "invalid_request_error", 1)}, "upstream_stream_broken", false},
		{"after the terminator", chat, []string{textEvent, chunkStop, openAIs}, "", false},
		{"null", chat, []string{textEvent, `data: {"error":null,"choices":[]}` + "\n\n", "data: [DONE]\n\n"}, "", false},
		{"quoted", chat, []string{textEvent, `data: {"choices":[{"delta":{"content":"{\"error\":{}} response.failed"}}]}` + "\n\n", "data: [DONE]\n\n"}, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				g, _ := startScripted(t, "access_log: true\nbreaker: {pause: 30s}\n"+oneUpstream, map[string]steps{"a": {events(test.events...)}})
				for range 5 {
					a := g.post(test.path, streamM)
					if want := strings.Join(test.events[1:], ""); a.status != 200 || !strings.HasSuffix(a.body, want) || strings.Contains(a.body, "its stream broke off") {
						t.Errorf("%d %s", a.status, a.body)
					}
				}
				for _, line := range g.lines() {
					if kind, _ := line["error"].(string); kind != test.kind {
						t.Errorf("the access log has %v", line)
					}
				}
				if test.kind != "" {
					if line := g.lastLine(); line["message"] != "upstream a sent an error in its stream" || strings.Contains(g.log.String(), "sesame") {
						t.Errorf("%v", line)
					}
					g.wantSeries(`sluice_errors_total{kind="upstream_stream_broken"} 5`, `sluice_broken_streams_total 5`)
				}
				target := g.p.Set().Models["m"].Targets[0]
				if opens := !target.Closed(g.p.clock()); opens != test.opens {
					t.Errorf("the breaker is open: %t", opens)
				}
				g.wantNothingLeft()
			})
		})
	}
}
