package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/valyala/fastjson"
)

// maxNesting is how many objects and arrays may be open at once.
const maxNesting = 300

var (
	errNotJSON   = errors.New("not one valid JSON object")
	errTooNested = errors.New("nested deeper than 300")
)

// name is a top-level member that concerns the gateway.
type name uint8

const (
	nameOther name = iota
	nameModel
	nameModelID
	nameStream
	nameGateway
)

// member is one such member and where it stands in the body. prevEnd is where the value
// of the member before it ends, nextStart where the name of the one after it begins; both
// are 0 without one.
type member struct {
	name               name
	index              int // among all members
	keyStart, keyEnd   int // with the quotes
	valueStart         int
	valueEnd           int
	prevEnd, nextStart int
}

// members is what scan finds, in the order of the body.
type members struct {
	list  [4]member
	n     int
	count int // of all members
	first int // where the first member's name begins
	last  int // where the last member's value ends
}

func (m *members) find(n name) *member {
	for i := range m.list[:m.n] {
		if m.list[i].name == n {
			return &m.list[i]
		}
	}
	return nil
}

// scan finds the top-level members that concern the gateway, and bounds the nesting. It
// goes by the structure alone and decodes nothing but names with escapes in them: that the
// body is valid JSON is for validate to say, and until then what scan found means nothing.
// repeated is true when a name occurs twice.
func scan(body []byte, parser *fastjson.Parser, m *members) (repeated bool, err error) {
	*m = members{}
	i := skipSpace(body, 0)
	if i == len(body) || body[i] != '{' {
		return false, errNotJSON
	}
	i = skipSpace(body, i+1)
	if i < len(body) && body[i] == '}' {
		return false, onlySpace(body, i+1)
	}
	var open *member // ours, waiting for where the next begins
	for ; ; m.count++ {
		here := member{index: m.count, keyStart: i, prevEnd: m.last}
		if m.count == 0 {
			m.first = i
		}
		if open != nil {
			open.nextStart = i
			open = nil
		}
		if i == len(body) || body[i] != '"' {
			return false, errNotJSON
		}
		here.keyEnd = stringEnd(body, i)
		i = skipSpace(body, here.keyEnd)
		if i == len(body) || body[i] != ':' {
			return false, errNotJSON
		}
		here.valueStart = skipSpace(body, i+1)
		if here.valueEnd, err = valueEnd(body, here.valueStart); err != nil {
			return false, err
		}
		m.last = here.valueEnd
		if here.name = nameOf(body[here.keyStart:here.keyEnd], parser); here.name != nameOther {
			if m.find(here.name) != nil {
				repeated = true
			} else {
				m.list[m.n] = here
				open = &m.list[m.n]
				m.n++
			}
		}
		i = skipSpace(body, here.valueEnd)
		if i == len(body) {
			return false, errNotJSON
		}
		switch body[i] {
		case '}':
			m.count++
			return repeated, onlySpace(body, i+1)
		case ',':
			i = skipSpace(body, i+1)
		default:
			return false, errNotJSON
		}
	}
}

// nameOf compares a name, given with its quotes, decoded.
func nameOf(key []byte, parser *fastjson.Parser) name {
	if len(key) < 2 {
		return nameOther
	}
	text := key[1 : len(key)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		v, err := parser.ParseBytes(key)
		if err != nil {
			return nameOther // validate will say so
		}
		if text, err = v.StringBytes(); err != nil {
			return nameOther
		}
	}
	switch string(text) {
	case "model":
		return nameModel
	case "model_id":
		return nameModelID
	case "stream":
		return nameStream
	case "gateway":
		return nameGateway
	}
	return nameOther
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

func onlySpace(b []byte, i int) error {
	if skipSpace(b, i) != len(b) {
		return errNotJSON
	}
	return nil
}

// stringEnd is where the string that begins at i is over, its closing quote included, or
// the end of b.
func stringEnd(b []byte, i int) int {
	for i++; ; i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		i += n
		escapes := 0
		for b[i-1-escapes] == '\\' {
			escapes++ // ends at the opening quote at the latest
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// valueEnd is where the value that begins at i is over.
func valueEnd(b []byte, i int) (int, error) {
	if i == len(b) {
		return i, errNotJSON
	}
	switch b[i] {
	case '"':
		return stringEnd(b, i), nil
	case '{', '[':
		return nestedEnd(b, i)
	}
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ' ' && b[i] != '\n' && b[i] != '\t' && b[i] != '\r' {
		i++
	}
	return i, nil
}

// nestedEnd is where the object or array that begins at i is over. The object around it
// is the first of what is open.
func nestedEnd(b []byte, i int) (int, error) {
	for depth := 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = stringEnd(b, i) - 1
		case '{', '[':
			if depth++; depth > maxNesting {
				return i, errTooNested
			}
		case '}', ']':
			if depth--; depth == 1 {
				return i + 1, nil
			}
		}
	}
	return len(b), nil
}

// validate reports whether the body is strictly valid JSON (RFC 8259). It recurses, so the
// nesting must have been bounded before.
func validate(body []byte) error {
	if fastjson.ValidateBytes(body) != nil || hasControl(body) && controlInString(body) {
		return errNotJSON
	}
	return nil
}

// fastjson 1.6.10 overlooks a raw control character ahead of an escape in the same string,
// so these are looked for here. Most bodies have none anywhere, which is seen eight bytes
// at a time.

// hasControl reports whether any byte of b is below 0x20 ("Bit Twiddling Hacks", S. E.
// Anderson: determine if a word has a byte less than n).
func hasControl(b []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; len(b) >= 8; b = b[8:] {
		if w := binary.LittleEndian.Uint64(b); (w-ones*0x20)&^w&highs != 0 {
			return true
		}
	}
	for _, c := range b {
		if c < 0x20 {
			return true
		}
	}
	return false
}

// controlInString reports whether a string of the valid structure b has such a byte.
func controlInString(b []byte) bool {
	for i := 0; ; {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return false
		}
		end := stringEnd(b, i+n)
		if hasControl(b[i+n : end]) {
			return true
		}
		i = end
	}
}
