package proxy

import (
	"bytes"
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
	nameStreamOptions
	nameMaxTokens // and its two newer names
	nameMaxCompletionTokens
	nameMaxOutputTokens
	names
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
	list  [names - 1]member
	n     int
	count int    // of all members
	again uint16 // a bit for each name that is there more than once
	first int    // where the first member's name begins
	last  int    // where the last member's value ends
}

func (m *members) find(n name) *member {
	for i := range m.list[:m.n] {
		if m.list[i].name == n {
			return &m.list[i]
		}
	}
	return nil
}

// scan reads the body once: it finds the top-level members that concern the gateway, bounds the
// nesting, and refuses what is not strictly valid JSON (validate.go). It decodes nothing but
// names with escapes in them. repeated is true when a name occurs twice.
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
		if here.keyEnd, here.valueStart = nameEnd(body, i); here.valueStart < 0 {
			return false, errNotJSON
		}
		if here.valueEnd, err = valueEnd(body, here.valueStart); err != nil {
			return false, err
		}
		m.last = here.valueEnd
		if here.name = nameOf(body[here.keyStart:here.keyEnd], parser); here.name != nameOther {
			if m.find(here.name) != nil {
				// The others are upstream's to judge.
				repeated = repeated || here.name <= nameGateway
				m.again |= 1 << here.name
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
	text := key[1 : len(key)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		v, err := parser.ParseBytes(key)
		if err != nil {
			return nameOther
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
	case "stream_options":
		return nameStreamOptions
	case "max_tokens":
		return nameMaxTokens
	case "max_completion_tokens":
		return nameMaxCompletionTokens
	case "max_output_tokens":
		return nameMaxOutputTokens
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
