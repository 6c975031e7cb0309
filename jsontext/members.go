package jsontext

import "bytes"

// Members iterates over the members of a JSON object in order. It builds nothing: a parser's tree
// takes a hundred times as many bytes as the text, and a pooled parser keeps the memory.
type Members struct {
	text             []byte
	at               int // where the next member's name begins
	begin            int // of the newest member
	nameEnd          int
	valueAt, valueTo int
	closed           bool // the object has ended, and nothing follows it
}

// MembersOf returns an iterator over the object that text begins with. Text that is no object has
// no members, and the iteration ends where the text is not JSON.
func MembersOf(text []byte) Members {
	i := SkipSpace(text, 0)
	if i == len(text) || text[i] != '{' {
		return Members{}
	}
	return Members{text: text, at: SkipSpace(text, i+1)}
}

// Next advances to the next member and reports whether there is one.
func (w *Members) Next() bool {
	end, from := NameEnd(w.text, w.at)
	if from < 0 {
		return false
	}
	to, err := ValueEnd(w.text, from)
	if err != nil {
		return false
	}
	w.begin, w.nameEnd, w.valueAt, w.valueTo = w.at, end, from, to
	w.at = BehindComma(w.text, to)
	if end := SkipSpace(w.text, to); end < len(w.text) && w.text[end] == '}' {
		w.closed = SkipSpace(w.text, end+1) == len(w.text)
	}
	return true
}

// Key returns the member's name as it is written, with its quotes.
func (w *Members) Key() []byte { return w.text[w.begin:w.nameEnd] }

// Name returns the member's name, decoded.
func (w *Members) Name() []byte { return Plain(w.Key()) }

// Span returns where the member begins, where its value ends, and where the next member begins
// (the end of the text if there is none).
func (w *Members) Span() (begin, end, behind int) { return w.begin, w.valueTo, w.at }

// Whole reports whether the object has ended and nothing follows it.
func (w *Members) Whole() bool { return w.closed }

// Value returns the member's value as it is written.
func (w *Members) Value() []byte { return w.text[w.valueAt:w.valueTo] }

// Member returns the value of the object's last member called name. It is nil without one, and
// for an object that is not whole.
func Member(object []byte, name string) (value []byte) {
	w := MembersOf(object)
	for w.Next() {
		if string(w.Name()) == name {
			value = w.Value()
		}
	}
	if !w.closed {
		return nil
	}
	return value
}

// BehindComma returns where the next member or element begins if a comma follows at i, and the
// end of b if none does.
func BehindComma(b []byte, i int) int {
	if i = SkipSpace(b, i); i == len(b) || b[i] != ',' {
		return len(b)
	}
	return SkipSpace(b, i+1)
}

// LongestName is more than the length of any name or type that is looked for.
const LongestName = 64

// Plain returns the text of a JSON string given with its quotes. A string longer than LongestName
// may come back with its escapes: it is no name that anybody looks for.
func Plain(quoted []byte) []byte {
	if len(quoted) > LongestName*len(`\u0000`)+2 {
		return quoted[1 : len(quoted)-1]
	}
	text, _ := Text(quoted)
	return text
}

// IsText reports whether value is the JSON string text.
func IsText(value []byte, text string) bool {
	return len(value) > 0 && value[0] == '"' && string(Plain(value)) == text
}

// IsNull reports whether value is absent or null.
func IsNull(value []byte) bool { return len(value) == 0 || value[0] == 'n' }

// IsEmpty reports whether value is absent, null, or an array or object with nothing in it.
func IsEmpty(value []byte) bool {
	return IsNull(value) || (value[0] == '[' || value[0] == '{') && SkipSpace(value, 1) == len(value)-1
}

// MayHide reports whether text has an ASCII letter or an underscore as an escape. No encoder
// writes one so, but every decoder reads "\u0065rror" as a name. A search for a name as it is
// usually written finds it only in a text that hides nothing.
func MayHide(text []byte) bool {
	for {
		if i := bytes.IndexByte(text, '\\'); i < 0 {
			return false
		} else if text = text[i+1:]; len(text) > 3 && string(text[:3]) == "u00" && '4' <= text[3] && text[3] <= '7' {
			return true
		}
	}
}

// MayName reports whether a member of text may be called as quoted says: a name with its quotes.
func MayName(text, quoted []byte) bool { return bytes.Contains(text, quoted) || MayHide(text) }
