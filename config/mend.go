package config

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// The parser stops at its first error. Two mistakes are common and easy to set aside, so that
// everything else in the file is checked too: ${NAME} without quotes inside {…} or […], where the
// brace is YAML's, and a value that begins with an asterisk, which is an alias.

// setAside stands in the text for what has been reported and set aside. It is a private-use
// character; a file that has it is not mended.
const setAside = '\uE000'

// maxMended bounds how many mistakes are set aside, and maxMending the bytes that are parsed again
// to go on after them.
const (
	maxMended  = 100
	maxMending = maxFile
)

// mend adds a finding for the mistake that the parser has stopped at, and returns b without it;
// false for any other mistake.
func (d *decoder) mend(b []byte, bad *yaml.LoadError) (mended []byte, ok bool) {
	at, found := offsetOf(b, bad.Mark.Line, bad.Mark.Column)
	d.mended++
	d.mending += len(b)
	if !found || d.mended > maxMended || d.mending > maxMending {
		return nil, false
	}
	where := position{bad.Mark.Line, bad.Mark.Column}
	switch rest := b[at:]; {
	case rest[0] == '*' && strings.HasPrefix(bad.Message, "unknown anchor"):
		d.add(where, "", "an alias (*…) without its anchor; quote a value that begins with an asterisk")
		return replaced(b, at, at+1), true
	case rest[0] == '{' && at > 0 && b[at-1] == '$':
		length := bytes.IndexAny(rest, "}\n")
		if length < 0 || rest[length] == '\n' {
			return nil, false
		}
		name, _, _ := strings.Cut(string(rest[1:length]), ":-")
		if !envName.MatchString(name) {
			name = "…" // it may be a secret
		}
		where.column--
		d.add(where, "", `${%s} must be in quotes inside {…} and […], as in "${%[1]s}"`, name)
		return replaced(b, at-1, at+length+1), true
	}
	return nil, false
}

// offsetOf is where a line and column, in characters from 1, is in b.
func offsetOf(b []byte, line, column int) (at int, ok bool) {
	for range line - 1 {
		end := bytes.IndexByte(b[at:], '\n')
		if end < 0 {
			return 0, false
		}
		at += end + 1
	}
	for range column - 1 {
		_, size := utf8.DecodeRune(b[at:])
		at += size
	}
	return at, line > 0 && column > 0 && at < len(b)
}

// replaced is b with setAside and then as many characters as there were, so that no column changes.
func replaced(b []byte, from, to int) []byte {
	fill := append([]byte(string(setAside)), bytes.Repeat([]byte{'x'}, utf8.RuneCount(b[from:to])-1)...)
	return slices.Concat(b[:from], fill, b[to:])
}
