package proxy

import (
	"bytes"

	"github.com/valyala/fastjson"

	"sluice/limiter"
)

// usage is what an upstream says that an answer has used.
type usage struct{ input, output int64 }

func (u *usage) known() bool { return u.input > 0 || u.output > 0 }

var usageName = []byte(`"usage"`)

// readUsage reads the usage of a whole JSON answer.
func (r *request) readUsage(body []byte) {
	if bytes.Contains(body, usageName) { // which is quicker to know than where
		r.tokens.usage.read(membersOf(body[skipSpace(body, 0):]).value(`"usage"`), &r.json.parser)
	}
}

// readEvent reads the usage that an event has: OpenAI's at its top, Anthropic's there or in the
// message that begins, the Responses API's in the response that ends. extra is true for a chunk that
// holds nothing else.
func (u *usage) readEvent(data []byte, parser *fastjson.Parser) (extra bool) {
	at := bytes.IndexByte(data, '{')
	if at < 0 {
		return false
	}
	var own, inner, choices []byte
	known := true
	membersOf(data[at:]).each(func(name, value []byte) {
		switch string(name) {
		case `"usage"`:
			own = value
		case `"message"`, `"response"`:
			inner = value
		case `"choices"`:
			choices = value
		}
		known = known && chunkNames[string(name)]
	})
	u.read(own, parser)
	u.read(membersOf(inner).value(`"usage"`), parser)
	none := len(choices) > 0 && choices[0] == '[' && skipSpace(choices, 1) == len(choices)-1
	return known && none && len(own) > 0 && own[0] == '{'
}

// chunkNames are the members of a chunk of OpenAI's that has no choices.
var chunkNames = map[string]bool{`"id"`: true, `"object"`: true, `"created"`: true, `"model"`: true, `"choices"`: true, `"usage"`: true,
	`"system_fingerprint"`: true, `"service_tier"`: true, `"obfuscation"`: true}

// membersOf is a JSON object whose members are looked at one after the other, without parsing them.
type membersOf []byte

// each calls f with each member's name, as it is written, and value. What is no object has none.
func (o membersOf) each(f func(name, value []byte)) {
	if len(o) == 0 || o[0] != '{' {
		return
	}
	for i := skipSpace(o, 1); ; {
		end, from := nameEnd(o, i)
		if from < 0 {
			return
		}
		to, err := valueEnd(o, from)
		if err != nil {
			return
		}
		f(o[i:end], o[from:to])
		if i = skipSpace(o, to); i == len(o) || o[i] != ',' {
			return
		}
		i = skipSpace(o, i+1)
	}
}

// value is that of the last member called name, which is given with its quotes; nil without one.
func (o membersOf) value(name string) (found []byte) {
	o.each(func(n, value []byte) {
		if string(n) == name {
			found = value
		}
	})
	return found
}

// read takes the counts of a usage object as it is written.
func (u *usage) read(object []byte, parser *fastjson.Parser) {
	if len(object) == 0 || len(object) > maxParsed {
		return
	}
	if v, err := parser.ParseBytes(object); err == nil {
		u.add(v)
	}
}

// add takes the counts of a usage object. They grow in the course of a stream: the largest counts.
func (u *usage) add(v *fastjson.Value) {
	if v == nil || v.Type() != fastjson.TypeObject {
		return
	}
	n := func(name string) int64 { return min(max(0, v.GetInt64(name)), limiter.MaxLimit) }
	// Anthropic's input_tokens are without those that its cache has written or read.
	input := max(n("prompt_tokens"), n("input_tokens")+n("cache_creation_input_tokens")+n("cache_read_input_tokens"))
	output := max(n("completion_tokens"), n("output_tokens"))
	if input == 0 && output == 0 {
		input = n("total_tokens")
	}
	u.input, u.output = max(u.input, input), max(u.output, output)
}
