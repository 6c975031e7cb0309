package mock

// response is an object of OpenAI's Responses API, before its end without output and usage.
func (q *question) response(status string) object {
	output, usage := []any{}, any(nil)
	if status == "completed" {
		output = append(output, q.outputItem(status))
		usage = object{"input_tokens", q.input(), "input_tokens_details", object{"cached_tokens", 0},
			"output_tokens", q.words, "output_tokens_details", object{"reasoning_tokens", 0}, "total_tokens", q.input() + q.words}
	}
	return object{"id", q.id("resp_"), "object", "response", "created_at", q.created, "status", status, "background", false,
		"error", nil, "incomplete_details", nil, "instructions", q.Instructions, "max_output_tokens", nil, "model", q.model(),
		"output", output, "parallel_tool_calls", true, "previous_response_id", nil,
		"reasoning", object{"effort", nil, "summary", nil}, "store", false, "temperature", 1, "text", object{"format", object{"type", "text"}},
		"tool_choice", "auto", "tools", []any{}, "top_p", 1, "truncation", "disabled", "usage", usage, "user", nil, "metadata", object{}}
}

func (q *question) outputItem(status string) object {
	content := []any{}
	if status == "completed" {
		content = append(content, outputText(q.text()))
	}
	return object{"id", q.id("msg_"), "type", "message", "status", status, "role", "assistant", "content", content}
}

func outputText(text string) object {
	return object{"type", "output_text", "annotations", []any{}, "logprobs", []any{}, "text", text}
}

func responsesAnswer(q *question) any { return q.response("completed") }

func responsesStream(q *question, e *events) {
	sequence := 0
	send := func(typ string, members ...any) {
		e.send(typ, append(object{"type", typ, "sequence_number", sequence}, members...))
		sequence++
	}
	part := func(typ string, members ...any) { // an event about the text of the one output item
		send(typ, append([]any{"item_id", q.id("msg_"), "output_index", 0, "content_index", 0}, members...)...)
	}
	send("response.created", "response", q.response("in_progress"))
	send("response.in_progress", "response", q.response("in_progress"))
	send("response.output_item.added", "output_index", 0, "item", q.outputItem("in_progress"))
	part("response.content_part.added", "part", outputText(""))
	e.each(q, func(word string) { part("response.output_text.delta", "delta", word, "logprobs", []any{}) })
	part("response.output_text.done", "text", q.text(), "logprobs", []any{})
	part("response.content_part.done", "part", outputText(q.text()))
	send("response.output_item.done", "output_index", 0, "item", q.outputItem("completed"))
	send("response.completed", "response", q.response("completed"))
}
