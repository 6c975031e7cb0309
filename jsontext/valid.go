// Package jsontext reads JSON text (RFC 8259) without building anything from it, and appends to it.
// What it is given is valid where a function does not say otherwise.
package jsontext

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// The rules of RFC 8259, without recursion and without building anything. Where a library
// would do (fastjson's validator is strict but for a raw control character ahead of an escape,
// which it overlooks), it is a second pass over the body and reads text at a third of this speed; a
// body of 1 MB is mostly one string. FuzzRewrite holds what is accepted against
// encoding/json.

// MaxNesting is how many objects and arrays may be open at once.
const MaxNesting = 300

var (
	ErrNotJSON   = errors.New("not one valid JSON object")
	ErrTooNested = errors.New("nested deeper than 300")
)

// ValueEnd returns where the value ends that begins at i, inside an object that is open.
func ValueEnd(b []byte, i int) (int, error) {
	var arrays [MaxNesting/64 + 1]uint64 // of what is open, by depth: 1 is an array
	depth := 0                           // of what is open inside the object around it
	for {
		// A value begins at i.
		if i == len(b) {
			return i, ErrNotJSON
		}
		switch b[i] {
		case '{', '[':
			if depth++; depth >= MaxNesting {
				return i, ErrTooNested
			}
			word, bit := &arrays[depth/64], uint64(1)<<(depth%64)
			if b[i] == '[' {
				*word |= bit
				if i = SkipSpace(b, i+1); i < len(b) && b[i] != ']' {
					continue
				}
			} else {
				*word &^= bit
				if i = SkipSpace(b, i+1); i < len(b) && b[i] != '}' {
					if _, i = NameEnd(b, i); i < 0 {
						return len(b), ErrNotJSON
					}
					continue
				}
			}
			if i == len(b) {
				return i, ErrNotJSON
			}
			// An empty one: what follows sees its end.
		case '"':
			i = stringEnd(b, i)
		case 't':
			i = wordEnd(b, i, "true")
		case 'f':
			i = wordEnd(b, i, "false")
		case 'n':
			i = wordEnd(b, i, "null")
		default:
			i = numberEnd(b, i)
		}
		if i < 0 {
			return len(b), ErrNotJSON
		}
		// A value has ended before i, or what is open is empty: what is open may end, too.
		for {
			if depth == 0 {
				return i, nil
			}
			array := arrays[depth/64]>>(depth%64)&1 == 1
			if i = SkipSpace(b, i); i == len(b) {
				return i, ErrNotJSON
			}
			if c := b[i]; array && c == ']' || !array && c == '}' {
				depth--
				i++
				continue
			} else if c != ',' {
				return i, ErrNotJSON
			}
			if i = SkipSpace(b, i+1); !array {
				if _, i = NameEnd(b, i); i < 0 {
					return len(b), ErrNotJSON
				}
			}
			break
		}
	}
}

// NameEnd returns where the name ends that begins at i, its closing quote included, and where the
// member's value begins. Both are -1 if no member begins there.
func NameEnd(b []byte, i int) (end, value int) {
	if i == len(b) || b[i] != '"' {
		return -1, -1
	}
	if end = stringEnd(b, i); end < 0 {
		return -1, -1
	}
	if i = SkipSpace(b, end); i == len(b) || b[i] != ':' {
		return -1, -1
	}
	return end, SkipSpace(b, i+1)
}

// stringEnd is where the string that begins at i is over, its closing quote included, or -1.
func stringEnd(b []byte, i int) int {
	for i = Special(b, i+1); i < len(b); i = Special(b, i) {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			if i+1 == len(b) {
				return -1
			}
			switch b[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				if i+6 > len(b) || !isHex(b[i+2]) || !isHex(b[i+3]) || !isHex(b[i+4]) || !isHex(b[i+5]) {
					return -1
				}
				i += 6
			default:
				return -1
			}
		default:
			return -1 // a raw control character
		}
	}
	return -1
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// Special returns where the first byte from i on stands that ends a string's plain text: a quote, a
// backslash, or one below 0x20; the end of b without one. It looks at words of eight bytes, and
// once a text turns out to be long at four of them before it branches ("Bit Twiddling Hacks", S. E.
// Anderson: determine if a word has a zero byte, or one less than n).
func Special(b []byte, i int) int {
	long := i + 64
	for ; len(b)-i >= 8; i += 8 {
		if m := marks(b[i : i+8]); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
		for ; i >= long && len(b)-i >= 8+32; i += 32 {
			p := b[i+8 : i+40 : i+40]
			if marks(p[0:8])|marks(p[8:16])|marks(p[16:24])|marks(p[24:32]) != 0 {
				break
			}
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < 0x20 {
			return i
		}
	}
	return i
}

// marks has the high bit set of each special byte of the eight. Above the first of them, bits
// may be set for others.
func marks(b []byte) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	w := binary.LittleEndian.Uint64(b)
	quote, backslash := w^ones*'"', w^ones*'\\'
	return ((w-ones*0x20)&^w | (quote-ones)&^quote | (backslash-ones)&^backslash) & highs
}

// wordEnd is where the word is over that b must have at i, or -1.
func wordEnd(b []byte, i int, word string) int {
	if end := i + len(word); end <= len(b) && string(b[i:end]) == word {
		return end
	}
	return -1
}

// numberEnd is where the number that begins at i is over, or -1.
func numberEnd(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	whole := digitsEnd(b, i)
	if whole == i || b[i] == '0' && whole > i+1 {
		return -1
	}
	if i = whole; i < len(b) && b[i] == '.' {
		fraction := digitsEnd(b, i+1)
		if fraction == i+1 {
			return -1
		}
		i = fraction
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		exponent := digitsEnd(b, i)
		if exponent == i {
			return -1
		}
		i = exponent
	}
	return i
}

func digitsEnd(b []byte, i int) int {
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}

// SkipSpace returns where the white space ends that may begin at i.
func SkipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}
