package proxy

import (
	"bytes"
	"fmt"

	"sluice/jsontext"
	"sluice/pool"
)

// tokens is what a request takes of its key's tokens: a reservation first, what the upstream
// says it has used in the end.
type tokens struct {
	limited bool  // the key has such a limit
	prompt  int64 // what the body is taken for
	output  int64 // the most that the client lets the model generate

	// of the answer
	answered bool // an answer has begun that is no error
	usage    usage
	whole    bool  // it has come to its end: its usage is the last word
	sent     int64 // what has come of it is taken for
	least    int   // bytes of the shortest of them
	asked    bool  // the upstream was asked for a stream's usage, for which the client did not ask
}

// bytesPerToken is what a token is taken for where nobody has counted: about what it is in English
// text.
const bytesPerToken = 4

// TokensNeeded is what is to be reserved: what the body is taken for, and the most that it lets the
// model generate. A request that has waited for a turn is asked twice.
func (r *request) TokensNeeded() int64 {
	t := &r.tokens
	t.limited = true
	if t.prompt == 0 {
		t.prompt, t.output = promptTokens(r.body), r.outputCap()
	}
	return t.prompt + t.output
}

// TokensNote explains to the client what a request needs of most.
func (r *request) TokensNote(most int64) string {
	return fmt.Sprintf("; this request needs %d, of which %d are for its body", min(r.TokensNeeded(), most), r.tokens.prompt)
}

// promptTokens is what a body is taken for. Base64 is not text; an image's tokens do not follow
// from its bytes.
func promptTokens(body []byte) int64 {
	text := len(body)
	for rest := body; ; {
		i := bytes.Index(rest, base64Marker)
		if i < 0 {
			break
		}
		rest = rest[i+len(base64Marker):]
		n := base64Length(rest)
		text -= n
		rest = rest[n:]
	}
	for rest := body; ; {
		i := bytes.Index(rest, dataName)
		if i < 0 {
			break
		}
		rest = rest[i+len(dataName):]
		at := jsontext.SkipSpace(rest, 0)
		if at == len(rest) || rest[at] != ':' {
			continue
		}
		if at = jsontext.SkipSpace(rest, at+1); at == len(rest) || rest[at] != '"' {
			continue
		}
		rest = rest[at+1:]
		if n := base64Length(rest); n >= leastBase64 && n < len(rest) && rest[n] == '"' {
			text -= n
			rest = rest[n:]
		}
	}
	return int64(text+bytesPerToken-1) / bytesPerToken
}

var (
	base64Marker = []byte(";base64,") // of a data: URL
	dataName     = []byte(`"data"`)   // of an audio or image part
)

// leastBase64 is how long a string must be to be taken for base64 by its characters alone.
const leastBase64 = 256

// base64Length is how many characters of base64 b begins with.
func base64Length(b []byte) int {
	for i, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '/', c == '-', c == '_', c == '=':
		case c == '\\' && i+1 < len(b) && b[i+1] == '/':
		default:
			return i
		}
	}
	return len(b)
}

// TokensUsed is what the upstream said; where it said nothing, what was reserved, or what the body and the
// answer are taken for if that is more; and nothing for an error. A client that has left did not get all
// that was reserved for it.
func (r *request) TokensUsed(reserved int64) int64 {
	t := &r.tokens
	left := r.left || r.failure != nil && r.failure.left
	switch {
	case len(r.attempts) == 0:
		return 0
	case !t.answered && left && (r.stream || r.failure != nil):
		return t.prompt // the upstream has read it
	case !t.answered:
		return 0
	case t.whole && t.usage.known():
		return t.usage.input + t.usage.output
	}
	input := t.usage.input // so far
	if input == 0 {
		input = t.prompt
	}
	n := input + max(t.usage.output, t.sent)
	if left && !t.whole {
		return n
	}
	return max(reserved, n)
}

// guess has the bytes of a plain answer that have come be taken for tokens, as far as no events of it were
// counted. What is encoded, and could not be read, is taken for as many tokens as it has bytes. On
// paths whose answers are sounds, images or vectors, bytes say nothing.
func (r *request) guess(i *inspection, came int64) {
	t := &r.tokens
	if !t.limited || !r.route.terminated {
		return
	}
	n := came / bytesPerToken
	switch read := i != nil && (i.err == nil || i.err == errStopped); {
	case read && i.beginning == anEvent:
		return
	case !r.isEncoded():
	case read && i.beginning == anObject:
		n = i.text / bytesPerToken
	default:
		n = came
	}
	t.sent = max(t.sent, n)
}

// count takes an event into account that is sent to the client, if it carries text. Such an event's
// frame is about as long as the shortest of them; what is longer is text, and each has a token at least.
func (t *tokens) count(data []byte, to *route) {
	name := deltaName
	if to.texts {
		name = textName
	}
	if !bytes.Contains(data, name) {
		return
	}
	if t.least == 0 || len(data) < t.least {
		t.least = len(data)
	}
	t.sent += max(1, int64(len(data)-t.least)/bytesPerToken)
}

var (
	deltaName = []byte(`"delta"`)
	textName  = []byte(`"text"`)
)

// maxOptions bounds the stream_options that are written anew, which nothing counts.
const maxOptions = 4 << 10

// askUsage decides whether target is asked for a stream's usage, and makes the stream_options that do.
func (r *request) askUsage(target *pool.Target) bool {
	if !r.tokens.limited || !r.fields.stream || !target.StreamUsage || !r.route.streamOptions {
		return false
	}
	if r.fields.members.again>>nameStreamOptions&1 != 0 {
		return false // one of them holds, and nobody knows which
	}
	m := r.fields.members.find(nameStreamOptions)
	if m == nil || bytes.Equal(r.value(m), null) {
		r.options = append(r.options[:0], `{"include_usage":true}`...)
		return true
	}
	if v := r.value(m); v[0] != '{' || len(v) > maxOptions {
		return false // the upstream will refuse it
	}
	var asked bool
	r.options, asked = withUsage(r.options[:0], r.value(m))
	return !asked
}

// withUsage appends the stream_options with include_usage to dst. asked is true if it is there
// already. It may be there twice, and one of them hold.
func withUsage(dst, options []byte) (_ []byte, asked bool) {
	dst, asked = append(dst, '{'), false
	no := false
	for w := jsontext.MembersOf(options); w.Next(); {
		if text, _ := jsontext.Text(w.Key()); string(text) == "include_usage" {
			yes := bytes.Equal(w.Value(), jsonTrue)
			asked, no = asked || yes, no || !yes
			continue
		}
		dst = append(append(append(append(dst, w.Key()...), ':'), w.Value()...), ',')
	}
	return append(dst, `"include_usage":true}`...), asked && !no
}

var jsonTrue = []byte("true")
