package proxy

import (
	"bytes"
	"strconv"

	"sluice/limiter"
)

// walk goes through the members of a JSON object in order. It builds nothing: what a parser makes
// of an upstream's megabytes takes a hundred times as many, and a parser keeps what it has grown to.
type walk struct {
	text             []byte
	at               int // where the next member's name begins
	begin            int // of the newest member
	nameEnd          int
	valueAt, valueTo int
	closed           bool // the object has ended, and nothing follows it
}

// walkObject returns a walk over the object that text begins with. What is no object has no
// members, and a walk ends where the text is not JSON.
func walkObject(text []byte) walk {
	i := skipSpace(text, 0)
	if i == len(text) || text[i] != '{' {
		return walk{}
	}
	return walk{text: text, at: skipSpace(text, i+1)}
}

// next goes on to the next member and reports whether there is one.
func (w *walk) next() bool {
	end, from := nameEnd(w.text, w.at)
	if from < 0 {
		return false
	}
	to, err := valueEnd(w.text, from)
	if err != nil {
		return false
	}
	w.begin, w.nameEnd, w.valueAt, w.valueTo = w.at, end, from, to
	w.at = behindComma(w.text, to)
	if end := skipSpace(w.text, to); end < len(w.text) && w.text[end] == '}' {
		w.closed = skipSpace(w.text, end+1) == len(w.text)
	}
	return true
}

// key is the member's name as it is written, and name the same decoded.
func (w *walk) key() []byte { return w.text[w.begin:w.nameEnd] }

func (w *walk) name() []byte { return plain(w.key()) }

// value is the member's value as it is written.
func (w *walk) value() []byte { return w.text[w.valueAt:w.valueTo] }

// memberOf returns the value of the object's last member called name. It is nil without one, and
// for an object that is not whole.
func memberOf(object []byte, name string) (value []byte) {
	w := walkObject(object)
	for w.next() {
		if string(w.name()) == name {
			value = w.value()
		}
	}
	if !w.closed {
		return nil
	}
	return value
}

// behindComma is where the next member or element begins if a comma follows at i; the end of b if
// none does.
func behindComma(b []byte, i int) int {
	if i = skipSpace(b, i); i == len(b) || b[i] != ',' {
		return len(b)
	}
	return skipSpace(b, i+1)
}

// longestName is more than the length of any name or type that is looked for.
const longestName = 64

// plain is the text of a JSON string given with its quotes. One that is longer than longestName
// may come back with its escapes: it is none that is looked for.
func plain(quoted []byte) []byte {
	if len(quoted) > longestName*len(`\u0000`)+2 {
		return quoted[1 : len(quoted)-1]
	}
	text, _ := textOf(quoted)
	return text
}

// isText reports whether value is the JSON string text.
func isText(value []byte, text string) bool {
	return len(value) > 0 && value[0] == '"' && string(plain(value)) == text
}

// isNull reports whether value is absent or null.
func isNull(value []byte) bool { return len(value) == 0 || value[0] == 'n' }

// isEmpty reports whether value is absent, null, or an array or object with nothing in it.
func isEmpty(value []byte) bool {
	return isNull(value) || (value[0] == '[' || value[0] == '{') && skipSpace(value, 1) == len(value)-1
}

// mayHide reports whether text has an ASCII letter or an underscore as an escape. No encoder
// writes one so, but every decoder reads "\u0065rror" as a name. A search for a name as it is
// usually written finds it only in a text that hides nothing.
func mayHide(text []byte) bool {
	for i := bytes.IndexByte(text, '\\'); i >= 0; i = next(text, i, '\\') {
		if code := text[i+1:]; len(code) > 3 && string(code[:3]) == "u00" && '4' <= code[3] && code[3] <= '7' {
			return true
		}
	}
	return false
}

// mayName reports whether a member of text may be called as quoted says: a name with its quotes.
func mayName(text, quoted []byte) bool { return bytes.Contains(text, quoted) || mayHide(text) }

// tokenCount is the number that value is, as a count of tokens: 0 for what is none.
func tokenCount(value []byte) int64 {
	const most = 32 // digits and more than any count has
	if len(value) == 0 || len(value) > most || value[0] < '0' || value[0] > '9' {
		return 0
	}
	n, _ := strconv.ParseFloat(borrowString(value), 64) // out of range it is infinite
	return int64(min(n, limiter.MaxLimit))
}
