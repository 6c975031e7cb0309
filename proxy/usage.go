package proxy

import "sluice/limiter"

// usage is what an upstream says that an answer has used.
type usage struct{ input, output int64 }

func (u *usage) known() bool { return u.input > 0 || u.output > 0 }

// readEvent reads the usage that an event has: OpenAI's at its top, Anthropic's there or in the
// message that begins, the Responses API's in the response that ends. extra is true for a chunk that
// holds nothing else.
func (u *usage) readEvent(data []byte) (extra bool) {
	var own, inner, choices []byte
	known := true
	w := walkObject(data)
	for w.next() {
		name := w.name()
		switch string(name) {
		case "usage":
			own = w.value()
		case "message", "response":
			inner = w.value()
		case "choices":
			choices = w.value()
		}
		known = known && chunkNames[string(name)]
	}
	if !w.closed {
		return false
	}
	u.read(own)
	u.read(memberOf(inner, "usage"))
	none := len(choices) > 0 && choices[0] == '[' && skipSpace(choices, 1) == len(choices)-1
	return known && none && len(own) > 0 && own[0] == '{'
}

// chunkNames are the members of a chunk of OpenAI's that has no choices.
var chunkNames = map[string]bool{"id": true, "object": true, "created": true, "model": true, "choices": true, "usage": true,
	"system_fingerprint": true, "service_tier": true, "obfuscation": true}

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
