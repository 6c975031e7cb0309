package config

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// The parser stops at its first error. One mistake is common and easy to set aside, so that everything
// else in the file is checked too: ${NAME} without quotes inside {…} or […], where the brace is YAML's.

// setAside stands in the text for what has been reported and set aside. It is a private-use
// character; a file that has it is not mended.
const setAside = '\uE000'

// maxMendings bounds how often a file is scanned again: what is set aside can uncover more.
const maxMendings = 4

// mended is the tokens of b. Mistakes that can be set aside are added as findings, and are not in it.
func (d *decoder) mended(b []byte) (token.Tokens, error) {
	tokens, err := scan(string(b))
	if bytes.ContainsRune(b, setAside) {
		return tokens, err
	}
	for range maxMendings {
		without, found := d.mend(b, tokens)
		if !found {
			break
		}
		b = without
		tokens, err = scan(string(b))
	}
	return tokens, err
}

// mend adds a finding for each ${NAME} in b whose brace is one of the tokens, and returns b without.
func (d *decoder) mend(b []byte, tokens token.Tokens) (mended []byte, found bool) {
	c, done := cursor{text: b, line: 1, column: 1}, 0
	for _, t := range tokens {
		if t.Type != token.MappingStartType || !c.moveTo(t.Position) || c.at <= done || b[c.at] != '{' || b[c.at-1] != '$' {
			continue
		}
		at := c.at
		length := bytes.IndexAny(b[at:min(len(b), at+maxName)], "}\n")
		if length < 0 || b[at+length] == '\n' {
			continue
		}
		name, _, _ := strings.Cut(string(b[at+1:at+length]), ":-")
		if !envName.MatchString(name) {
			name = "…" // it may be a secret
		}
		d.add(position{t.Position.Line, t.Position.Column - 1}, "",
			`${%s} must be in quotes inside {…} and […], as in "${%[1]s}"`, name)
		mended = append(append(mended, b[done:at-1]...), replacement(b[at-1:at+length+1])...)
		done, found = at+length+1, true
	}
	return append(mended, b[done:]...), found
}

// cursor goes through text.
type cursor struct {
	text             []byte
	at, line, column int
}

// moveTo goes on to p, and reports whether it is there.
func (c *cursor) moveTo(p *token.Position) bool {
	for c.at < len(c.text) && (position{c.line, c.column}).before(position{p.Line, p.Column}) {
		r, size := utf8.DecodeRune(c.text[c.at:])
		c.at += size
		if c.column++; r == '\n' {
			c.line, c.column = c.line+1, 1
		}
	}
	return c.at < len(c.text) && c.line == p.Line && c.column == p.Column
}

// replacement is setAside and then as many characters as there were, so that no column changes.
func replacement(old []byte) []byte {
	return append([]byte(string(setAside)), bytes.Repeat([]byte{'x'}, utf8.RuneCount(old)-1)...)
}
