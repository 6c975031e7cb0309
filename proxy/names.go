package proxy

import (
	"encoding/binary"
	"slices"
	"strings"

	"sluice/config"
	"sluice/jsontext"
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
	nameN      // how many answers
	nameBestOf // how many are made, of which the n best are sent
	names
)

var nameTexts = [names]string{
	nameModel: "model", nameModelID: "model_id", nameStream: "stream", nameGateway: "gateway",
	nameStreamOptions: "stream_options", nameMaxTokens: "max_tokens", nameN: "n", nameBestOf: "best_of",
	nameMaxCompletionTokens: "max_completion_tokens", nameMaxOutputTokens: "max_output_tokens",
}

// oddity is why a top-level name is refused: an upstream may read it as another member than the
// gateway did.
type oddity uint8

const (
	notOdd  oddity = iota
	oddCase        // one of the names above only when case is folded
	oddField
	oddText // a character that parsers drop, replace or end a name at
)

// maxOwnName is the length of the longest name that can be one of ours. The configuration allows no
// longer model_field.
const maxOwnName = 64

// modelFields are the names that the gateway writes the model's name under because an upstream's
// model_field says so, in lower case. The names that a client uses for it are not among them.
func modelFields(cfg *config.Config) (fields []string) {
	for _, u := range cfg.Upstreams {
		field := strings.ToLower(u.ModelField)
		if field != "" && exactName([]byte(field)) == nameOther && !slices.Contains(fields, field) {
			fields = append(fields, field)
		}
	}
	return fields
}

// nameOf reads a top-level name, given without its quotes. Most names have nothing that could be
// read in two ways and are only compared.
func nameOf(text []byte, fields []string) (name, oddity) {
	if n := exactName(text); n != nameOther {
		return n, notOdd
	}
	if !plainName(text) {
		return unfoldName(text, fields)
	}
	if isField(text, fields) {
		return nameOther, oddField
	}
	return nameOther, notOdd
}

func exactName(text []byte) name {
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
	case "n":
		return nameN
	case "best_of":
		return nameBestOf
	}
	return nameOther
}

func isField(folded []byte, fields []string) bool {
	for _, field := range fields {
		if string(folded) == field {
			return true
		}
	}
	return false
}

// plainName reports whether text has no capital letter, no escape and nothing outside ASCII. It may
// deny it of a text that is plain. It looks at eight bytes at a time.
func plainName(text []byte) bool {
	if len(text) < 8 {
		if cap(text) >= 8 { // of the body around it: what follows the name is shifted out
			word := binary.LittleEndian.Uint64(text[:8])
			return !folds(word << (64 - 8*len(text)))
		}
		var word uint64
		for _, c := range text {
			word = word<<8 | uint64(c)
		}
		return !folds(word)
	}
	for i := 0; i < len(text)-8; i += 8 {
		if folds(binary.LittleEndian.Uint64(text[i:])) {
			return false
		}
	}
	return !folds(binary.LittleEndian.Uint64(text[len(text)-8:]))
}

// folds reports whether one of the eight bytes is from 0x3f to 0x5e, where the capital letters and
// the backslash are and the underscore is not, or outside ASCII.
func folds(w uint64) bool {
	const ones = 0x0101010101010101
	up := w + ones // only ASCII: no carry
	return up&^(up<<1)&(ones*0x40)|w&(ones*0x80) != 0
}

// unfoldName decodes a name and compares it with case folded. It keeps no more of it than can be
// one of ours.
func unfoldName(text []byte, fields []string) (name, oddity) {
	var folded [maxOwnName]byte
	length, exact := 0, true
	for len(text) > 0 {
		c, size, ok := rune(text[0]), 1, true
		if c == '\\' || c > 0x7f {
			c, size, ok = jsontext.NextChar(text)
		}
		if !ok || c == 0 || c == '\ufeff' {
			return nameOther, oddText
		}
		text = text[size:]
		if length < len(folded) {
			f := fold(c)
			exact = exact && rune(f) == c
			folded[length] = f
		}
		length++
	}
	if length > len(folded) {
		return nameOther, notOdd
	}
	n := exactName(folded[:length])
	switch {
	case n != nameOther && !exact:
		return n, oddCase
	case n == nameOther && isField(folded[:length], fields):
		return nameOther, oddField
	}
	return n, notOdd
}

// fold is the lower-case ASCII character that c is taken for where case is ignored, or 0 for none.
// It covers Unicode's simple folding, which encoding/json uses, and what parsers use that map each
// character to the other case: they take İ and ı for an i.
func fold(c rune) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return byte(c) + 'a' - 'A'
	case c <= 0x7f:
		return byte(c)
	case c == 'ſ':
		return 's'
	case c == '\u212a': // the sign of the kelvin
		return 'k'
	case c == 'İ', c == 'ı':
		return 'i'
	}
	return 0
}
