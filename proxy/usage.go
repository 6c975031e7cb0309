package proxy

import "sluice/limiter"

// usage is what an upstream says that an answer has used.
type usage struct{ input, output int64 }

func (u *usage) known() bool { return u.input > 0 || u.output > 0 }

// readEvent reads the usage that an event has: OpenAI's at its top, Anthropic's there or in the
// message that begins, the Responses API's in the response that ends. extra is true for a chunk of
// OpenAI's that tells its usage and nothing else that an API has a name for.
func (u *usage) readEvent(data []byte) (extra bool) {
	var own, inner, choices, err []byte
	foreign := false // an event of another API
	w := walkObject(data)
	for w.next() {
		switch string(w.name()) {
		case "usage":
			own = w.value()
		case "message", "response":
			inner, foreign = w.value(), true
		case "type", "delta":
			foreign = true
		case "choices":
			choices = w.value()
		case "error":
			err = w.value()
		}
	}
	if !w.closed {
		return false
	}
	u.read(own)
	u.read(memberOf(inner, "usage"))
	return !foreign && !isError(err) && isEmpty(choices) && len(own) > 0 && own[0] == '{'
}

// read takes the counts of a usage object as it is written. They grow in the course of a stream: the
// largest counts.
func (u *usage) read(object []byte) {
	var prompt, input, written, cached, completion, total int64
	for w := walkObject(object); w.next(); {
		switch string(w.name()) {
		case "prompt_tokens":
			prompt = tokenCount(w.value())
		case "input_tokens":
			input = tokenCount(w.value())
		case "cache_creation_input_tokens":
			written = tokenCount(w.value())
		case "cache_read_input_tokens":
			cached = tokenCount(w.value())
		case "completion_tokens", "output_tokens":
			completion = max(completion, tokenCount(w.value()))
		case "total_tokens":
			total = tokenCount(w.value())
		}
	}
	// Anthropic's input_tokens are without those that its cache has written or read.
	input = min(max(prompt, input+written+cached), limiter.MaxLimit)
	if input == 0 && completion == 0 {
		input = total
	}
	u.input, u.output = max(u.input, input), max(u.output, completion)
}
