package proxy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/sse"
)

// TestTerminatorIsWhatDecodingSays: the quick look finds every end that decoding each event
// would find, and no other.
func TestTerminatorIsWhatDecodingSays(t *testing.T) {
	values := []string{`null`, `"stop"`, `"length"`, ` "stop"`, `{"finish_reason":"stop"}`, `"message_stop"`, `"response.completed"`,
		`"response.incomplete"`, `"response.failed"`, `"response.created"`, `"content_block_stop"`, `"a_b.c"`, `"\"finish_reason\":\"stop\""`, `[]`, `1`}
	shapes := []string{`{"type":%s}`, `{"a":1, "type" : %s}`, `{"choices":[{"finish_reason":%s}]}`, `{"choices":[{"delta":{"content":"_."},"finish_reason" : %s},{"finish_reason":null}]}`,
		`{"delta":{"finish_reason":%s}}`, `{"message":{"type":%s}}`, `{"choices":[{"delta":{"content":%s}}]}`, `{"finish_reason":%s}`, `[%s]`, `{"type":"message_stop","choices":[{"finish_reason":%s}]}`}
	for _, shape := range shapes {
		for _, value := range values {
			data := fmt.Sprintf(shape, value)
			var decoded struct {
				Type    any `json:"type"`
				Choices []struct {
					FinishReason any `json:"finish_reason"`
				} `json:"choices"`
			}
			wantEnds, wantLast := false, false
			if json.Unmarshal([]byte(data), &decoded) == nil {
				switch decoded.Type {
				case "message_stop", "response.completed", "response.incomplete", "response.failed":
					wantEnds, wantLast = true, true
				}
				for _, c := range decoded.Choices {
					wantEnds = wantEnds || c.FinishReason != nil
				}
			}
			for _, before := range []string{"", " \t", strings.Repeat(" ", 100)} {
				if got := look(&sse.Event{Data: []byte(before + data)}); got.ends != wantEnds || got.last != wantLast {
					t.Errorf("%q: %+v, decoded it says %v %v", data, got, wantEnds, wantLast)
				}
			}
			for cut := range len(data) { // nothing breaks on less
				look(&sse.Event{Data: []byte(data[:cut])})
			}
		}
	}
	for data, want := range map[string]bool{"[DONE]": true, " [DONE] ": true, "[DONE": false, "[DONE]x": false, "": false, "done": false} {
		if got := look(&sse.Event{Data: []byte(data)}); got.ends != want || got.last != want {
			t.Errorf("%q: %+v", data, got)
		}
	}
}

func BenchmarkLook(b *testing.B) {
	e := &sse.Event{Data: []byte(`{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[{"index":0,"delta":{"content":" water"},"finish_reason":null}]}`)}
	b.ReportAllocs()
	for b.Loop() {
		if look(e).ends {
			b.Fatal("it ends")
		}
	}
}
