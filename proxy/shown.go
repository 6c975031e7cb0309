package proxy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxShown is how many characters of a client's text an error quotes.
const maxShown = 100

// cut is a client's text as far as it is shown: valid UTF-8 of at most maxShown characters.
func cut(text []byte) string {
	head := characters(text, maxShown)
	shown := strings.ToValidUTF8(string(head), "\uFFFD")
	if len(head) < len(text) {
		shown += "…"
	}
	return shown
}

// characters is the beginning of text, of at most so many characters. A byte that is no UTF-8 is one.
func characters(text []byte, most int) []byte {
	if len(text) <= most {
		return text
	}
	at := 0
	for n := 0; n < most && at < len(text); n++ {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return text[:at]
}

// shown is cut in quotes.
func shown(text []byte) string { return fmt.Sprintf("%q", cut(text)) }
