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
// No event is decoded to find that out: the few bytes that one of the path's kind must hold
// are looked for, and only an event that has them is parsed. Looking is most of what a short
// event costs, so no more is looked for than the path can have.
func terminator(e *sse.Event, kind ending, parser *fastjson.Parser) (ends, last bool) {
	data := bytes.TrimLeft(e.Data, " \t\n")
	if len(data) < len("[DONE]") {
		return false, false
	}
	if data[0] != '{' {
		done := bytes.Equal(bytes.TrimSpace(data), doneData)
		return done, done
	}
	switch kind {
	case finishReasons:
		return finished(data) && hasFinishReason(data, parser), false
	case finalTypes:
		final := hasFinalType(data, parser)
		return final, final
	}
	return false, false
}

// hasFinalType reports whether the event's type is a final one.
func hasFinalType(data []byte, parser *fastjson.Parser) bool {
	for _, name := range finalTypeNames {
		if bytes.Contains(data, name) {
			v, err := parser.ParseBytes(data)
			if err != nil {
				return false
			}
			typ := v.GetStringBytes("type")
			for _, name := range finalTypeNames {
				if bytes.Equal(typ, name[1:len(name)-1]) {
					return true
				}
			}
			return false
		}
	}
	return false
}

var (
	doneData     = []byte("[DONE]")
	finishReason = []byte(`"finish_reason"`)
	null         = []byte("null")
	// Anthropic's and the Responses API's, with quotes.
	finalTypeNames = [][]byte{[]byte(`"message_stop"`), []byte(`"response.completed"`), []byte(`"response.incomplete"`), []byte(`"response.failed"`)}
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
