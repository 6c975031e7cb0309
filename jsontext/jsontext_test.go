package jsontext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestWalkIsWhatDecodingSays: the member that a walk finds is the one that decoding the object
// gives, however its name is written.
func TestWalkIsWhatDecodingSays(t *testing.T) {
	names := []string{`"error"`, `"\u0065rror"`, `"erro\u0072"`, `"\u0065\u0072\u0072\u006F\u0072"`, `"errors"`, `"err\"or"`, `"e\u00e9"`, `""`}
	shapes := []string{`{%s:1}`, ` { %s : {"error":2} , "b":[1,{}]}`, `{"a":{%s:1}}`, `{"error":3,%s:4}`, `{%[1]s:5,%[1]s:6}`, `[%s]`, `{%s:`, `{%s:1`, `{%s:1}x`, `{"a":tru,%s:1}`, `{}`, ``}
	for _, shape := range shapes {
		for _, name := range names {
			text := fmt.Sprintf(shape, name)
			if !strings.Contains(shape, "%") {
				text = shape
			}
			var decoded map[string]json.RawMessage
			_ = json.Unmarshal([]byte(text), &decoded)
			if got, want := string(Member([]byte(text), "error")), string(decoded["error"]); got != want {
				t.Errorf("%s: %q, decoded it is %q", text, got, want)
			}
			if _, named := decoded["error"]; named && !MayName([]byte(text), []byte(`"error"`)) {
				t.Errorf("%s: the name is not found", text)
			}
		}
	}
}

func TestSpecial(t *testing.T) {
	for length := range 70 {
		for at := range length + 1 {
			for _, c := range []byte{'"', '\\', 0, 0x1f} {
				b := bytes.Repeat([]byte{0x20, '!', '#', '[', ']', 0x7f, 0x80, 0xff}, 9)[:length]
				if at < length {
					b[at] = c
				}
				if got := Special(b, 0); got != at {
					t.Fatalf("%q: %d, want %d", b, got, at)
				}
			}
		}
	}
}

func FuzzAppendString(f *testing.F) {
	for _, text := range []string{"", "\xed\xa0\x80", "a\xffb\xc3(", "\U000E0001\u200b\ufeff\u2028", "é🙂", "\x00\x1b\x7f\n\"\\/"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := AppendString(nil, text)
		var back string
		if err := json.Unmarshal(b, &back); err != nil || !utf8.Valid(b) {
			t.Fatalf("%q became %q: %v", text, b, err)
		}
		var want []rune // a range has one U+FFFD for each byte that is no UTF-8
		for _, r := range text {
			want = append(want, r)
		}
		if back != string(want) {
			t.Errorf("%q came back as %q", text, back)
		}
	})
}
