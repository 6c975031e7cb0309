package proxy

import (
	"strconv"

	"sluice/jsontext"
	"sluice/limiter"
)

// usage is what an upstream says that an answer has used.
type usage struct{ input, output int64 }

func (u *usage) known() bool { return u.input > 0 || u.output > 0 }

// readEvent reads the usage that an event has: OpenAI's at its top, Anthropic's there or in the
// message that begins, the Responses API's in the response that ends. extra is true for a chunk of
// OpenAI's that tells its usage and nothing else that an API has a name for.
func (u *usage) readEvent(data []byte) (extra bool) {
	var own, inner, choices, err []byte
	foreign := false // an event of another API
	w := jsontext.MembersOf(data)
	for w.Next() {
		switch string(w.Name()) {
		case "usage":
			own = w.Value()
		case "message", "response":
			inner, foreign = w.Value(), true
		case "type", "delta":
			foreign = true
		case "choices":
			choices = w.Value()
		case "error":
			err = w.Value()
		}
	}
	if !w.Whole() {
		return false
	}
	u.read(own)
	u.read(jsontext.Member(inner, "usage"))
	return !foreign && !isError(err) && jsontext.IsEmpty(choices) && len(own) > 0 && own[0] == '{'
}

// read takes the counts of a usage object as it is written. They grow in the course of a stream: the
// largest counts.
func (u *usage) read(object []byte) {
	var prompt, input, written, cached, completion, total int64
	for w := jsontext.MembersOf(object); w.Next(); {
		switch string(w.Name()) {
		case "prompt_tokens":
			prompt = tokenCount(w.Value())
		case "input_tokens":
			input = tokenCount(w.Value())
		case "cache_creation_input_tokens":
			written = tokenCount(w.Value())
		case "cache_read_input_tokens":
			cached = tokenCount(w.Value())
		case "completion_tokens", "output_tokens":
			completion = max(completion, tokenCount(w.Value()))
		case "total_tokens":
			total = tokenCount(w.Value())
		}
	}
	// Anthropic's input_tokens are without those that its cache has written or read.
	input = min(max(prompt, input+written+cached), limiter.MaxLimit)
	if input == 0 && completion == 0 {
		input = total
	}
	u.input, u.output = max(u.input, input), max(u.output, completion)
}

// tokenCount is the number that value is, as a count of tokens: 0 for what is none.
func tokenCount(value []byte) int64 {
	const most = 32 // digits and more than any count has
	if len(value) == 0 || len(value) > most || value[0] < '0' || value[0] > '9' {
		return 0
	}
	n, _ := strconv.ParseFloat(borrowString(value), 64) // out of range it is infinite
	return int64(min(n, limiter.MaxLimit))
}
