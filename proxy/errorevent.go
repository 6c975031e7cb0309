package proxy

import (
	"bytes"
	"strconv"
	"time"

	"sluice/client"
	"sluice/jsontext"
)

const (
	// cutPause is the longest time between an error event and the end of a body that is cut. Clients
	// in JavaScript drop what they have received and not yet read when they see that end: a WHATWG
	// stream's error empties its queue. One second is enough for a client that works on each event
	// for 200 ms (docs/clients.md). A client that closes the connection ends the pause.
	cutPause = time.Second
	// lastPause is in its place when the process ends, and fits into abortGrace.
	lastPause = 100 * time.Millisecond
)

// pauseBeforeCut waits until the client has had time to read the error event, or has left.
func (p *Proxy) pauseBeforeCut(conn *client.Conn) {
	how, why, _ := conn.Wait(p.cutPause, nil)
	if how == client.Aborted && why == client.Ending {
		time.Sleep(lastPause)
	}
}

// appendErrorEvent appends what a client reads of a stream that cannot be completed, in its dialect.
func (s *stream) appendErrorEvent(dst []byte, f *failure) []byte {
	switch d := s.r.dialect(); d {
	case responses:
		return s.seen.appendFailed(s.seen.appendError(dst, f), f)
	case anthropic:
		dst = append(dst, "event: error\n"...)
		fallthrough
	default:
		return append(appendError(append(dst, "data: "...), d, f), "\n\n"...)
	}
}

// responseSeen is what the events of a Responses API stream have said of the response so far. An
// event that ends the stream in the upstream's place repeats it.
type responseSeen struct {
	sequence  int64  // the number that the next event has
	id, model []byte // as written, with their quotes; empty until seen
	created   int64
}

// longestSeen bounds what is kept of an id and a model's name.
const longestSeen = 256

func (t *responseSeen) clear() { *t = responseSeen{id: t.id[:0], model: t.model[:0]} }

var sequenceName = []byte(`"sequence_number"`)

// see reads an event's data. Most events have little to tell, so no object is walked for its number.
func (t *responseSeen) see(data []byte) {
	if at := bytes.Index(data, sequenceName); at >= 0 {
		rest := data[jsontext.SkipSpace(data, at+len(sequenceName)):]
		if len(rest) > 0 && rest[0] == ':' {
			t.sequence = max(t.sequence, leadingNumber(rest[jsontext.SkipSpace(rest, 1):])+1)
		}
	}
	if len(t.id) > 0 || !bytes.Contains(data, responseName) {
		return
	}
	for w := jsontext.MembersOf(jsontext.Member(data, "response")); w.Next(); {
		switch value := w.Value(); string(w.Name()) {
		case "id":
			t.id = keepText(t.id, value)
		case "model":
			t.model = keepText(t.model, value)
		case "created_at":
			t.created = max(0, leadingNumber(value))
		}
	}
}

var responseName = []byte(`"response"`)

// leadingNumber is the whole number that text begins with, -1 without one.
func leadingNumber(text []byte) (n int64) {
	const most = 15 // digits, which no overflow can follow
	if len(text) == 0 || text[0] < '0' || text[0] > '9' {
		return -1
	}
	for i, c := range text {
		if c < '0' || c > '9' || i == most {
			break
		}
		n = 10*n + int64(c-'0')
	}
	return n
}

// keepText copies a JSON string that is not too long into dst.
func keepText(dst, value []byte) []byte {
	if value[0] != '"' || len(value) > longestSeen {
		return dst
	}
	return append(dst[:0], value...)
}

// appendError appends the dialect's error event. OpenAI describes it with the code and the message at
// the top. Its SDKs make an exception of an event only if it has an error member, as its service sends.
func (t *responseSeen) appendError(dst []byte, f *failure) []byte {
	dst = append(dst, "event: error\ndata: {\"type\":\"error\""...)
	dst = jsontext.AppendString(jsontext.AppendName(dst, "code"), kindTable[f.kind].code)
	dst = jsontext.AppendString(jsontext.AppendName(dst, "message"), f.message)
	dst = append(dst, `,"param":null`...)
	dst = appendErrorMember(dst, f)
	dst = strconv.AppendInt(jsontext.AppendName(dst, "sequence_number"), t.sequence, 10)
	return append(dst, "}\n\n"...)
}

// appendFailed appends the response.failed event, the end that agents such as Codex wait for. Its
// response has the members that OpenAI's description of the API requires.
func (t *responseSeen) appendFailed(dst []byte, f *failure) []byte {
	dst = append(dst, "event: response.failed\ndata: {\"type\":\"response.failed\""...)
	dst = strconv.AppendInt(jsontext.AppendName(dst, "sequence_number"), t.sequence+1, 10)
	dst = append(dst, `,"response":{"id":`...)
	dst = appendSeen(dst, t.id)
	dst = append(dst, `,"object":"response"`...)
	dst = strconv.AppendInt(jsontext.AppendName(dst, "created_at"), t.created, 10)
	dst = append(dst, `,"status":"failed","error":{"code":`...)
	dst = jsontext.AppendString(dst, kindTable[f.kind].code)
	dst = jsontext.AppendString(jsontext.AppendName(dst, "message"), f.message)
	dst = append(dst, `},"incomplete_details":null,"instructions":null,"metadata":{},"model":`...)
	dst = appendSeen(dst, t.model)
	return append(dst, `,"output":[],"parallel_tool_calls":true,"temperature":null,"tool_choice":"auto",`+
		`"tools":[],"top_p":null,"usage":null}}`+"\n\n"...)
}

// appendSeen appends a string that was kept, an empty one without.
func appendSeen(dst, kept []byte) []byte {
	if len(kept) == 0 {
		return append(dst, `""`...)
	}
	return append(dst, kept...)
}
