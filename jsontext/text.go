package jsontext

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// What is read of a client's JSON is read here, out of text that scan has found valid. Nothing is
// built, so that nothing grows with what a client sends.

// NextChar decodes the character with which text, the inside of a string, begins, and says how many
// bytes of text it takes. What is no character (bytes that are not UTF-8, half a surrogate pair)
// is utf8.RuneError and not ok.
func NextChar(text []byte) (c rune, size int, ok bool) {
	if text[0] != '\\' {
		c, size = utf8.DecodeRune(text)
		return c, size, c != utf8.RuneError || size > 1
	}
	switch text[1] {
	case 'b':
		return '\b', 2, true
	case 'f':
		return '\f', 2, true
	case 'n':
		return '\n', 2, true
	case 'r':
		return '\r', 2, true
	case 't':
		return '\t', 2, true
	case 'u':
	default: // a quote, a backslash or a slash
		return rune(text[1]), 2, true
	}
	c = hexChar(text[2:6])
	if !utf16.IsSurrogate(c) {
		return c, 6, true
	}
	if len(text) >= 12 && text[6] == '\\' && text[7] == 'u' {
		if pair := utf16.DecodeRune(c, hexChar(text[8:12])); pair != utf8.RuneError {
			return pair, 12, true
		}
	}
	return utf8.RuneError, 6, false
}

// hexChar is the value of digits that are known to be hexadecimal.
func hexChar(digits []byte) (c rune) {
	for _, d := range digits {
		c = c<<4 | rune(d&15+9*(d>>6))
	}
	return c
}

// Text decodes a string. The result is value's own bytes where there are no escapes. ok is false
// for what is no string.
func Text(value []byte) (text []byte, ok bool) {
	if value[0] != '"' {
		return nil, false
	}
	rest := value[1 : len(value)-1]
	if bytes.IndexByte(rest, '\\') < 0 {
		return rest, true
	}
	text = make([]byte, 0, len(rest))
	for len(rest) > 0 {
		plain := bytes.IndexByte(rest, '\\')
		if plain < 0 {
			plain = len(rest)
		}
		text, rest = append(text, rest[:plain]...), rest[plain:]
		if len(rest) > 0 {
			c, size, _ := NextChar(rest)
			text, rest = utf8.AppendRune(text, c), rest[size:]
		}
	}
	return text, true
}
