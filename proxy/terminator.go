package proxy

import (
	"bytes"
	"slices"

	"github.com/valyala/fastjson"

	"sluice/sse"
)

// terminator reports whether an event says that the answer is complete, and whether
// nothing can follow it. A chunk with a finish_reason is often followed by one with usage
// and by [DONE].
//
// No event is decoded to find that out: two names are looked for, and only an event in which one
// of them has a value that ends an answer is parsed. Looking is most of what a short event costs.
func terminator(e *sse.Event, parser *fastjson.Parser) (ends, last bool) {
	data := bytes.TrimLeft(e.Data, " \t\n")
	if len(data) < len("[DONE]") {
		return false, false
	}
	if data[0] != '{' {
		done := bytes.Equal(bytes.TrimSpace(data), doneData)
		return done, done
	}
	if named(data, finishReason, notNull) && hasFinishReason(data, parser) {
		return true, false
	}
	final := named(data, typeName, isFinalType) && hasFinalType(data, parser)
	return final, final
}

// named reports whether name, given with its quotes, is the name of a value for which is is
// true, at any depth. Inside a JSON string the quotes would be escaped, so what matches is a name
// or a whole string.
func named(data, name []byte, is func(value []byte) bool) bool {
	for {
		i := bytes.Index(data, name)
		if i < 0 {
			return false
		}
		data = data[i+len(name):]
		if at := skipSpace(data, 0); at < len(data) && data[at] == ':' && is(data[skipSpace(data, at+1):]) {
			return true
		}
	}
}

func notNull(value []byte) bool { return !bytes.HasPrefix(value, null) }

func isFinalType(value []byte) bool {
	for _, name := range finalTypes {
		if bytes.HasPrefix(value, name) {
			return true
		}
	}
	return false
}

var (
	doneData     = []byte("[DONE]")
	finishReason = []byte(`"finish_reason"`)
	typeName     = []byte(`"type"`)
	null         = []byte("null")
	// Anthropic's and the Responses API's, with quotes.
	finalTypes = [][]byte{[]byte(`"message_stop"`), []byte(`"response.completed"`), []byte(`"response.incomplete"`), []byte(`"response.failed"`)}
)

func hasFinalType(data []byte, parser *fastjson.Parser) bool {
	v, err := parser.ParseBytes(data)
	if err != nil {
		return false
	}
	typ := v.GetStringBytes("type")
	return slices.ContainsFunc(finalTypes, func(name []byte) bool { return bytes.Equal(typ, name[1:len(name)-1]) })
}

func hasFinishReason(data []byte, parser *fastjson.Parser) bool {
	v, err := parser.ParseBytes(data)
	if err != nil {
		return false
	}
	for _, choice := range v.GetArray("choices") {
		if reason := choice.Get("finish_reason"); reason != nil && reason.Type() != fastjson.TypeNull {
			return true
		}
	}
	return false
}
