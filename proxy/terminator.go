package proxy

import (
	"bytes"

	"sluice/jsontext"
	"sluice/sse"
)

// found is what an event says of its stream.
type found struct {
	ends  bool // the answer is complete
	last  bool // and nothing can follow: after a finish_reason, a chunk with usage and [DONE] often do
	usage bool // it may have counts of tokens
}

// look looks at an event.
//
// No event is decoded to find that out. The names that matter all have an underscore or a dot in
// them, which are rare, and quickly found; only an event in which one of them stands is walked
// through. Inside a JSON string its quotes would be escaped.
func look(e *sse.Event) found {
	data := e.Data
	for len(data) > 0 && (data[0] == ' ' || data[0] == '\t' || data[0] == '\n') {
		data = data[1:]
	}
	if len(data) < len("[DONE]") {
		return found{}
	}
	if data[0] != '{' {
		done := bytes.Equal(bytes.TrimSpace(data), doneData)
		return found{ends: done, last: done}
	}
	finish, final, usage := marked(data)
	final = final && hasFinalType(data)
	return found{ends: final || finish && hasFinishReason(data), last: final, usage: usage}
}

// marked reports whether an event may have a finish_reason that is not null, whether it may be
// of a final type, and whether it may count tokens.
func marked(data []byte) (finish, final, usage bool) {
	if jsontext.MayHide(data) {
		return true, true, true
	}
	for at := bytes.IndexByte(data, '_'); at >= 0; at = next(data, at, '_') {
		switch {
		case around(data, at, `"finish`, `reason"`):
			value := jsontext.SkipSpace(data, at+len(`_reason"`))
			finish = finish || value < len(data) && data[value] == ':' && !bytes.HasPrefix(data[jsontext.SkipSpace(data, value+1):], null)
		case around(data, at, `"message`, `stop"`):
			final = true
		case around(data, at, "", `tokens"`):
			usage = true
		}
	}
	for at := bytes.IndexByte(data, '.'); at >= 0; at = next(data, at, '.') {
		if around(data, at, `"response`, `completed"`) || around(data, at, `"response`, `incomplete"`) || around(data, at, `"response`, `failed"`) {
			final = true
		}
	}
	return finish, final, usage
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

// hasFinalType reports whether the event is of a type that ends Anthropic's streams or the
// Responses API's.
func hasFinalType(data []byte) bool {
	typ := jsontext.Member(data, "type")
	if len(typ) == 0 || typ[0] != '"' {
		return false
	}
	switch string(jsontext.Plain(typ)) {
	case "message_stop", "response.completed", "response.incomplete", "response.failed":
		return true
	}
	return false
}

// hasFinishReason reports whether one of the event's choices has a finish_reason that is not null.
func hasFinishReason(data []byte) bool {
	choices := jsontext.Member(data, "choices")
	if len(choices) == 0 || choices[0] != '[' {
		return false
	}
	for i := jsontext.SkipSpace(choices, 1); i < len(choices) && choices[i] != ']'; {
		end, err := jsontext.ValueEnd(choices, i)
		if err != nil {
			return false
		}
		if !jsontext.IsNull(jsontext.Member(choices[i:end], "finish_reason")) {
			return true
		}
		i = jsontext.BehindComma(choices, end)
	}
	return false
}
