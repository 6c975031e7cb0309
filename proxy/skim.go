package proxy

import (
	"bytes"

	"sluice/jsontext"
)

// skim finds what walk finds at the top of an object in one that passes in pieces, and of which nothing
// is held but those members. It does not judge what is JSON.
type skim struct {
	depth    int
	inString bool
	escaped  bool // the byte before was a backslash
	naming   bool // a member's name, or what is before it, is being read
	name     []byte
	keeping  bool // its value is one that is looked for
	value    []byte
	top      top
	objects  int // that have ended
}

// longestSkimmed is how much of a value is kept, and more than the length of any usage.
const longestSkimmed = 16 << 10

// write goes on with text, and calls ended at the end of each object.
func (s *skim) write(text []byte, ended func(*top)) {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if s.inString && !s.escaped && !s.keeping && !s.naming {
			if i = jsontext.Special(text, i); i == len(text) {
				return
			}
			c = text[i]
		}
		switch {
		case s.escaped:
			s.escaped = false
		case s.inString:
			s.escaped, s.inString = c == '\\', c != '"'
		case c == '"':
			s.inString = true
		case c == '{', c == '[':
			if s.depth++; s.depth == 1 {
				s.top, s.naming, s.name = top{}, c == '{', s.name[:0]
				continue
			}
		case s.depth == 1 && c == ':' && s.naming:
			s.naming, s.keeping, s.value = false, s.wanted(), nil
			continue
		case s.depth == 1 && c == ',':
			s.endMember()
			s.naming, s.name = true, s.name[:0]
			continue
		case c == '}', c == ']':
			if s.depth--; s.depth == 0 {
				s.endMember()
				s.objects++
				ended(&s.top)
			}
			s.depth = max(0, s.depth)
		}
		s.keep(c)
	}
}

func (s *skim) keep(c byte) {
	switch {
	case s.naming && s.depth == 1 && len(s.name) < jsontext.LongestName*len(`\u0000`):
		s.name = append(s.name, c)
	case s.keeping && len(s.value) < longestSkimmed:
		s.value = append(s.value, c)
	}
}

// member is where the value goes of the member that is being read; nil if it is none that is looked for.
func (s *skim) member() *[]byte {
	quoted := bytes.TrimSpace(s.name)
	if len(quoted) < 2 || quoted[0] != '"' || quoted[len(quoted)-1] != '"' || !wholeJSON(quoted) {
		return nil
	}
	return s.top.member(jsontext.Plain(quoted))
}

func (s *skim) wanted() bool { return s.member() != nil }

func (s *skim) endMember() {
	if s.keeping {
		*s.member() = bytes.TrimSpace(s.value)
		s.keeping = false
	}
}
