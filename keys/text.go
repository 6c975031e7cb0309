package keys

import (
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"
)

// checkText refuses names that a reader, or a terminal, takes for other text than they are. It is
// for what differs from old only: a key that has such a name already keeps it. old may be nil.
func (s *Spec) checkText(old *Spec) error {
	if old == nil || s.Name != old.Name {
		if r, bad := deceptive(s.Name); bad {
			return &FieldError{"name", fmt.Sprintf("must be text without control or invisible characters; it has %U", r)}
		}
	}
	if old == nil || s.Note != old.Note {
		if r, bad := deceptive(s.Note); bad {
			return &FieldError{"note", fmt.Sprintf("must be text without control or invisible characters; it has %U", r)}
		}
	}
	for _, model := range s.Models {
		if old != nil && slices.Contains(old.Models, model) {
			continue
		}
		if r, bad := deceptive(model); bad {
			return &FieldError{"models", fmt.Sprintf("must be names without control or invisible characters; one has %U", r)}
		}
	}
	return nil
}

const zeroWidthNonJoiner, zeroWidthJoiner = '\u200c', '\u200d'

// deceptive returns the first character of text that is of the categories Cc (control), Cf (format:
// the bidirectional controls and what has no width), Zl or Zp (separators of lines and paragraphs),
// or that is no UTF-8. The two joiners are allowed between characters beyond ASCII: emoji, Persian
// and Indic scripts need them there.
func deceptive(text string) (r rune, bad bool) {
	before := rune(0)
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return r, true
		case r == zeroWidthJoiner || r == zeroWidthNonJoiner:
			if after, _ := utf8.DecodeRuneInString(text[i+size:]); !joined(before) || !joined(after) {
				return r, true
			}
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return r, true
		}
		before = r
	}
	return 0, false
}

// joined reports whether r may stand beside a joiner.
func joined(r rune) bool {
	return r > unicode.MaxASCII && r != utf8.RuneError && unicode.In(r, unicode.L, unicode.M, unicode.S)
}
