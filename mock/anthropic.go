package mock

// The shapes here are those of Anthropic's API reference:
// https://platform.claude.com/docs/en/api/messages

func anthropicError(status int, message string) any {
	typ := "invalid_request_error"
	if status >= 500 {
		typ = "api_error"
	}
	return object{"type", "error", "error", object{"type", typ, "message", message}}
}

func (q *question) message(content []any, stopReason any, output int) object {
	return object{"id", q.id("msg_"), "type", "message", "role", "assistant", "model", q.model(), "content", content,
		"stop_reason", stopReason, "stop_sequence", nil, "usage", q.messageUsage(output)}
}

func (q *question) messageUsage(output int) object {
	return object{"input_tokens", q.input(), "cache_creation_input_tokens", 0, "cache_read_input_tokens", 0, "output_tokens", output}
}

func messagesAnswer(q *question) any {
	return q.message([]any{object{"type", "text", "text", q.text()}}, "end_turn", q.words)
}

func messagesStream(q *question, e *events) {
	send := func(typ string, members ...any) { e.send(typ, append(object{"type", typ}, members...)) }
	send("message_start", "message", q.message([]any{}, nil, 1))
	send("content_block_start", "index", 0, "content_block", object{"type", "text", "text", ""})
	send("ping")
	e.each(q, func(word string) {
		send("content_block_delta", "index", 0, "delta", object{"type", "text_delta", "text", word})
	})
	send("content_block_stop", "index", 0)
	send("message_delta", "delta", object{"stop_reason", "end_turn", "stop_sequence", nil}, "usage", q.messageUsage(q.words))
	send("message_stop")
}

func countAnswer(q *question) any { return object{"input_tokens", q.input()} }
