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
// No event is decoded to find that out. The names that matter all have an underscore or a dot in
// them, which are rare, and quickly found; only an event in which one of them stands is parsed.
// Inside a JSON string its quotes would be escaped.
func terminator(e *sse.Event, parser *fastjson.Parser) (ends, last bool) {
	data := e.Data
	for len(data) > 0 && (data[0] == ' ' || data[0] == '\t' || data[0] == '\n') {
		data = data[1:]
	}
	if len(data) < len("[DONE]") {
		return false, false
	}
	if data[0] != '{' {
		done := bytes.Equal(bytes.TrimSpace(data), doneData)
		return done, done
	}
	finish, final := marked(data)
	if final = final && hasFinalType(data, parser); final {
		return true, true
	}
	return finish && hasFinishReason(data, parser), false
}

// marked reports whether an event may have a finish_reason that is not null, and whether it may be
// of a final type.
func marked(data []byte) (finish, final bool) {
	for at := bytes.IndexByte(data, '_'); at >= 0; at = next(data, at, '_') {
		switch {
		case around(data, at, `"finish`, `reason"`):
			value := skipSpace(data, at+len(`_reason"`))
			finish = finish || value < len(data) && data[value] == ':' && !bytes.HasPrefix(data[skipSpace(data, value+1):], null)
		case around(data, at, `"message`, `stop"`):
			final = true
		}
	}
	for at := bytes.IndexByte(data, '.'); at >= 0; at = next(data, at, '.') {
		if around(data, at, `"response`, `completed"`) || around(data, at, `"response`, `incomplete"`) || around(data, at, `"response`, `failed"`) {
			final = true
		}
	}
	return finish, final
}

// next is where c stands again behind at, -1 if nowhere.
func next(data []byte, at int, c byte) int {
	if i := bytes.IndexByte(data[at+1:], c); i >= 0 {
		return at + 1 + i
	}
	return -1
}

// around reports what stands before and behind the byte at a place.
func around(data []byte, at int, before, behind string) bool {
	return at >= len(before) && at+1+len(behind) <= len(data) &&
		string(data[at-len(before):at]) == before && string(data[at+1:at+1+len(behind)]) == behind
}

var (
	doneData = []byte("[DONE]")
	null     = []byte("null")
)

func hasFinalType(data []byte, parser *fastjson.Parser) bool {
	v, err := parser.ParseBytes(data)
	if err != nil {
		return false
	}
	switch string(v.GetStringBytes("type")) { // Anthropic's and the Responses API's
	case "message_stop", "response.completed", "response.incomplete", "response.failed":
		return true
	}
	return false
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
