package mock

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
)

// The shapes here are those of OpenAI's API reference:
// https://developers.openai.com/api/reference

func openAIError(status int, message string) any {
	typ := "invalid_request_error"
	if status >= 500 {
		typ = "server_error"
	}
	return object{"error", object{"message", message, "type", typ, "param", nil, "code", nil}}
}

func (q *question) chatUsage() object {
	return object{"prompt_tokens", q.input(), "completion_tokens", q.words, "total_tokens", q.input() + q.words}
}

func chatAnswer(q *question) any {
	message := object{"role", "assistant", "content", q.text(), "refusal", nil}
	return object{"id", q.id("chatcmpl-"), "object", "chat.completion", "created", q.created, "model", q.model(),
		"choices", []any{object{"index", 0, "message", message, "logprobs", nil, "finish_reason", "stop"}},
		"usage", q.chatUsage()}
}

func chatStream(q *question, e *events) {
	chunk := func(choices ...any) object {
		return object{"id", q.id("chatcmpl-"), "object", "chat.completion.chunk", "created", q.created, "model", q.model(),
			"choices", append([]any{}, choices...)}
	}
	choice := func(delta object, finish any) object {
		return object{"index", 0, "delta", delta, "logprobs", nil, "finish_reason", finish}
	}
	e.send("", chunk(choice(object{"role", "assistant", "content", ""}, nil)))
	e.each(q, func(word string) { e.send("", chunk(choice(object{"content", word}, nil))) })
	e.send("", chunk(choice(object{}, "stop")))
	if q.StreamOptions.IncludeUsage {
		e.send("", append(chunk(), "usage", q.chatUsage()))
	}
	e.send("", verbatim("[DONE]"))
}

// completion is an answer, or a chunk of one, of the API that chat came after.
func (q *question) completion(choices ...any) object {
	return object{"id", q.id("cmpl-"), "object", "text_completion", "created", q.created, "model", q.model(),
		"choices", append([]any{}, choices...)}
}

func textChoice(text string, finish any) object {
	return object{"text", text, "index", 0, "logprobs", nil, "finish_reason", finish}
}

func textAnswer(q *question) any {
	return append(q.completion(textChoice(q.text(), "stop")), "usage", q.chatUsage())
}

func textStream(q *question, e *events) {
	e.each(q, func(word string) { e.send("", q.completion(textChoice(word, nil))) })
	e.send("", q.completion(textChoice("", "stop")))
	if q.StreamOptions.IncludeUsage {
		e.send("", append(q.completion(), "usage", q.chatUsage()))
	}
	e.send("", verbatim("[DONE]"))
}

func embeddingsAnswer(q *question) any {
	data := []any{}
	for i := range q.inputs() {
		data = append(data, object{"object", "embedding", "index", i, "embedding", embedding(q.EncodingFormat)})
	}
	return object{"object", "list", "data", data, "model", q.model(),
		"usage", object{"prompt_tokens", q.input(), "total_tokens", q.input()}}
}

// inputs is how many inputs get a vector each. A text is one, and so is a list of its tokens.
func (q *question) inputs() int {
	var list []json.RawMessage
	if json.Unmarshal(q.Input, &list) != nil || len(list) == 0 || list[0][0] != '"' && list[0][0] != '[' {
		return 1
	}
	return len(list)
}

func embedding(format string) any {
	vector := []float32{0.1, 0.2, 0.3}
	if format != "base64" {
		return vector
	}
	var b []byte
	for _, x := range vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(b)
}

func modelsAnswer(q *question) any {
	return object{"object", "list", "data", []any{object{"id", "demo-model", "object", "model", "created", q.created, "owned_by", "sluice"}}}
}
