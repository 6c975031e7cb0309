package proxy

import (
	"encoding/json"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
)

// TestUpstreamRequestID: the id that the provider gave the request reaches the client, the access log and the
// last errors under a name of its own, and no id of the gateway's is replaced by it.
func TestUpstreamRequestID(t *testing.T) {
	const chat, messages = "/v1/chat/completions", "/v1/messages"
	for _, test := range []struct {
		name, path, body string
		script           steps
		want             string
	}{
		{"OpenAI's", chat, plainM, steps{status("200 OK", "x-request-id: req_1")}, "req_1"},
		{"Anthropic's", messages, plainM, steps{status("200 OK", "request-id: req_2", "x-request-id: of-a-proxy")}, "req_2"},
		{"Azure's", chat, plainM, steps{status("200 OK", "x-request-id: req_1", "apim-request-id: azure")}, "azure"},
		{"AWS's", chat, plainM, steps{status("200 OK", "x-amzn-RequestId: aws")}, "aws"},
		{"on another path", chat, plainM, steps{status("200 OK", "request-id: req_2")}, "req_2"},
		{"none", messages, plainM, steps{status("200 OK")}, ""},
		{"the gateway's own", chat, plainM, steps{status("200 OK", "x-request-id: mine")}, ""},
		{"forged", chat, plainM, steps{status("200 OK", "x-sluice-upstream-request-id: forged")}, ""},
		{"no id", chat, plainM, steps{status("200 OK", "request-id: two words", "apim-request-id: \xe4", "x-request-id: "+strings.Repeat("x", 129))}, ""},
		{"the next", chat, plainM, steps{status("200 OK", "request-id: two words", "x-request-id: "+strings.Repeat("x", 128))}, strings.Repeat("x", 128)},
		{"of a stream", messages, streamM, steps{upstreamtest.Say(strings.Replace(streamHead, "\r\n", "\r\nrequest-id: req_3\r\n", 1) +
			chunked(anthropicStart+anthropicStop) + "0\r\n\r\n")}, "req_3"},
		{"of an error", messages, plainM, steps{status("404 No", "request-id: req_4")}, "req_4"},
		{"of a refused credential", chat, plainM, steps{status("401 No", "x-request-id: req_5")}, "req_5"},
		{"of the last attempt", chat, plainM, steps{status("503 No", "x-request-id: req_6"), status("200 OK", "x-request-id: req_7")}, "req_7"},
		{"of none before the last", chat, plainM, steps{status("503 No", "x-request-id: req_6"), upstreamtest.Say("nonsense\r\n\r\n")}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				text := strings.Replace(oneUpstream, "max_retries: 0", "max_retries: "+string('0'+rune(len(test.script)-1)), 1)
				g, _ := startScripted(t, "access_log: true\n"+text, map[string]steps{"a": test.script})
				a := g.post(test.path, test.body, "X-Request-Id", "mine")
				if got := strings.Join(a.header.Values("X-Sluice-Upstream-Request-Id"), "|"); got != test.want {
					t.Errorf("the client reads %q", got)
				}
				own := strings.Join(append(a.header.Values("X-Request-Id"), a.header.Values("Request-Id")...), " ")
				if want := map[string]string{chat: "mine", messages: "mine mine"}[test.path]; own != want {
					t.Errorf("the gateway's ids are %q, want %q", own, want)
				}
				logged, _ := g.lines()[0]["upstream_request_id"].(string)
				if logged != test.want {
					t.Errorf("the access log has %q", logged)
				}
				for _, line := range g.lastErrors() {
					var e struct {
						ID string `json:"upstream_request_id"`
					}
					if err := json.Unmarshal(line, &e); err != nil || e.ID != test.want {
						t.Errorf("%s %v", line, err)
					}
				}
			})
		})
	}
}
