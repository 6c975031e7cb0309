package proxy

import (
	"bytes"

	"github.com/valyala/fastjson"

	"sluice/sse"
)

// terminator reports whether an event says that the answer is complete, and whether
// nothing can follow it. A chunk with a finish_reason is often followed by one with usage
// and by [DONE].
//
// No event is decoded to find that out: the few bytes that each kind must hold are looked
// for, and only an event that has them is parsed.
func terminator(e *sse.Event, parser *fastjson.Parser) (ends, last bool) {
	data := bytes.TrimLeft(e.Data, " \t\n")
	if len(data) < len("[DONE]") {
		return false, false
	}
	if data[0] != '{' {
		done := bytes.Equal(bytes.TrimSpace(data), doneData)
		return done, done
	}
	if finished(data) && hasFinishReason(data, parser) {
		return true, false
	}
	for _, typ := range finalTypes {
		if bytes.Contains(data, typ) && hasType(data, typ[1:len(typ)-1], parser) {
			return true, true
		}
	}
	return false, false
}

func hasType(data, typ []byte, parser *fastjson.Parser) bool {
	v, err := parser.ParseBytes(data)
	return err == nil && bytes.Equal(v.GetStringBytes("type"), typ)
}

var (
	doneData     = []byte("[DONE]")
	finishReason = []byte(`"finish_reason"`)
	null         = []byte("null")
	// Anthropic's and the Responses API's, with quotes.
	finalTypes = [][]byte{[]byte(`"message_stop"`), []byte(`"response.completed"`), []byte(`"response.incomplete"`), []byte(`"response.failed"`)}
)

// finished looks for a finish_reason that is not null. Inside a JSON string the quotes
// would be escaped, so what matches is a name or a whole string.
func finished(data []byte) bool {
	for {
		i := bytes.Index(data, finishReason)
		if i < 0 {
			return false
		}
		data = data[i+len(finishReason):]
		at := skipSpace(data, 0)
		if at == len(data) || data[at] != ':' {
			continue
		}
		if !bytes.HasPrefix(data[skipSpace(data, at+1):], null) {
			return true
		}
	}
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
