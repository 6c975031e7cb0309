package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/mock"
)

// at is what stands in a JSON value at a path of names and indexes, as text; "" for nothing.
func at(v any, path string) string {
	for step := range strings.SplitSeq(path, ".") {
		var index int
		switch x := v.(type) {
		case map[string]any:
			v = x[step]
		case []any:
			if _, err := fmt.Sscan(step, &index); err != nil || index >= len(x) {
				return ""
			}
			v = x[index]
		default:
			return ""
		}
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// event is one of a stream; data is nil for one that is no JSON.
type event struct {
	typ, text string
	data      any
}

func eventsOf(t *testing.T, stream string) (all []event) {
	t.Helper()
	for block := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		var e event
		for line := range strings.Lines(block + "\n") {
			if typ, ok := strings.CutPrefix(line, "event: "); ok {
				e.typ = strings.TrimSpace(typ)
			} else if text, ok := strings.CutPrefix(line, "data: "); ok {
				e.text = strings.TrimSpace(text)
				_ = json.Unmarshal([]byte(text), &e.data)
			} else {
				t.Errorf("a line that is no part of an event: %q", line)
			}
		}
		all = append(all, e)
	}
	return all
}

const fourWords = "A sluice is a"

// TestDialectsOfTheDemo: each API that the demo's provider serves answers through the gateway in its
// own shape, plain and streamed.
func TestDialectsOfTheDemo(t *testing.T) {
	n := begin(t, provider(t, &mock.Provider{Chunks: 4}), "")
	key := n.key(`{"name":"x"}`)
	const hello = `"messages":[{"role":"user","content":"Hello"}]` // 35 bytes of messages: 9 tokens
	for _, test := range []struct {
		path, body string
		plain      map[string]string // what the plain answer has
		types      string            // of the stream's events, or their first choice's finish_reason; repeated ones once
		delta      string            // where an event has its text
		ends       map[string]string // what the last event that is JSON has
	}{
		{
			"chat/completions", hello + `,"stream_options":{"include_usage":true}`,
			map[string]string{"object": "chat.completion", "model": "demo-model", "choices.0.message.role": "assistant", "choices.0.message.content": fourWords,
				"choices.0.finish_reason": "stop", "usage.prompt_tokens": "9", "usage.completion_tokens": "4", "usage.total_tokens": "13"},
			"", "choices.0.delta.content",
			map[string]string{"object": "chat.completion.chunk", "choices": "[]", "usage.total_tokens": "13"},
		},
		{
			"completions", `"prompt":"Hello?"`,
			map[string]string{"object": "text_completion", "choices.0.text": fourWords, "choices.0.finish_reason": "stop", "usage.prompt_tokens": "2"},
			"", "choices.0.text",
			map[string]string{"object": "text_completion", "choices.0.finish_reason": "stop"},
		},
		{
			"responses", `"input":"Hello?"`,
			map[string]string{"object": "response", "status": "completed", "model": "demo-model", "output.0.type": "message", "output.0.role": "assistant",
				"output.0.content.0.type": "output_text", "output.0.content.0.text": fourWords, "usage.input_tokens": "2", "usage.output_tokens": "4", "usage.total_tokens": "6"},
			"response.created response.in_progress response.output_item.added response.content_part.added response.output_text.delta " +
				"response.output_text.done response.content_part.done response.output_item.done response.completed",
			"delta",
			map[string]string{"sequence_number": "11", "response.status": "completed", "response.output.0.content.0.text": fourWords, "response.usage.total_tokens": "6"},
		},
		{
			"messages", `"max_tokens":100,` + hello,
			map[string]string{"type": "message", "role": "assistant", "model": "demo-model", "content.0.type": "text", "content.0.text": fourWords,
				"stop_reason": "end_turn", "usage.input_tokens": "9", "usage.output_tokens": "4"},
			"message_start content_block_start ping content_block_delta content_block_stop message_delta message_stop",
			"delta.text",
			map[string]string{"type": "message_stop"},
		},
		{
			path: "messages/count_tokens", body: hello,
			plain: map[string]string{"input_tokens": "9"},
		},
		{
			path: "embeddings", body: `"input":["a","b"]`,
			plain: map[string]string{"object": "list", "data.1.object": "embedding", "data.1.index": "1", "data.0.embedding": "[0.1 0.2 0.3]", "usage.prompt_tokens": "3"},
		},
	} {
		t.Run(test.path, func(t *testing.T) {
			status, body := n.call("POST", n.data+"/v1/"+test.path, key, `{"model":"demo",`+test.body+`}`)
			var answer any
			if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || at(answer, "gateway.upstream") != "up" {
				t.Fatalf("%d %v %s", status, err, body)
			}
			for path, want := range test.plain {
				if got := at(answer, path); got != want {
					t.Errorf("%s is %q, want %q", path, got, want)
				}
			}
			if test.delta == "" {
				return
			}
			status, body = n.call("POST", n.data+"/v1/"+test.path, key, `{"model":"demo","stream":true,`+test.body+`}`)
			if status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			all := eventsOf(t, body)
			var types []string
			text := ""
			for i, e := range all {
				if e.typ != at(e.data, "type") || strings.HasPrefix(e.typ, "response.") && at(e.data, "sequence_number") != fmt.Sprint(i) {
					t.Errorf("event %d: %+v", i, e)
				}
				if len(types) == 0 || types[len(types)-1] != e.typ {
					types = append(types, e.typ)
				}
				text += at(e.data, test.delta)
			}
			last := all[len(all)-1]
			if test.types == "" { // events of these have no type
				if last.text != "[DONE]" {
					t.Errorf("it ends with %q", last.text)
				}
				last = all[len(all)-2]
			}
			if got := strings.Join(types, " "); got != test.types || text != fourWords || at(all[0].data, "gateway.upstream") != "up" {
				t.Errorf("types %s\ntext %q\nfirst %s", got, text, all[0].text)
			}
			for path, want := range test.ends {
				if got := at(last.data, path); got != want {
					t.Errorf("at the end %s is %q, want %q", path, got, want)
				}
			}
		})
	}
	// Four words in each of seven answers; the stream of completions did not ask for its usage.
	if _, body := n.call("GET", n.admin+"/metrics", adminToken, ""); !strings.Contains(body, `sluice_tokens_total{direction="out",model="demo",upstream="up"} 28`) {
		t.Errorf("%s", strings.Join(series(body, `(?m)^(sluice_tokens_total.*)$`), "\n"))
	}
}

// TestErrorsOfTheDemo: each API of the demo's provider fails in its own shape.
func TestErrorsOfTheDemo(t *testing.T) {
	n := begin(t, provider(t, &mock.Provider{FailureRate: 1}), "retry: {max_retries: 0}")
	key := n.key(`{"name":"x"}`)
	for path, want := range map[string]string{
		"chat/completions": `"error":{"message":"the provider has failed, as it was told to","type":"server_error"`,
		"responses":        `"error":{"message":"the provider has failed, as it was told to","type":"server_error"`,
		"messages":         `"type":"error","error":{"type":"api_error","message":"the provider has failed, as it was told to"}`,
		"rerank":           `"error":{"message":"the mock provider serves paths that end in /chat/completions `,
	} {
		if _, body := n.call("POST", n.data+"/v1/"+path, key, `{"model":"demo"}`); !strings.Contains(body, want) {
			t.Errorf("%s: %s", path, body)
		}
	}
}
