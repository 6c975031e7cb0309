package proxy

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/internal/upstreamtest"
)

// oddTexts are those that something on the way could quote, cut or escape wrongly.
func oddTexts() []string {
	texts := []string{"", "\xed\xa0\x80", "\xf0\x9f", "a\xffb\xc3(", "\U000E0001", "\u200b\ufeff\u2028", "é🙂", strings.Repeat("é", 200), strings.Repeat("🙂", 101),
		strings.Repeat("x", 99) + "🙂y", strings.Repeat("\xff", 300), strings.Repeat(`"`, 101), "</script>\u2029"}
	for c := range 256 {
		texts = append(texts, string([]byte{byte(c)}), string([]byte{'a', byte(c), 'b'}))
	}
	return texts
}

func TestCut(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"a\xffb":                        "a\uFFFDb",
		strings.Repeat("é", 100):        strings.Repeat("é", 100),
		strings.Repeat("é", 101):        strings.Repeat("é", 100) + "…",
		strings.Repeat("x", 98) + "é🙂y": strings.Repeat("x", 98) + "é🙂…",
	} {
		if got := cut([]byte(in)); got != want {
			t.Errorf("%q is %q", in, got)
		}
	}
	for _, text := range oddTexts() {
		if got := cut([]byte(text)); !utf8.ValidString(got) || utf8.RuneCountInString(got) > maxShown+1 {
			t.Errorf("%q is %q", text, got)
		}
	}
}

// jsonText is text as a JSON string whose bytes above control characters stand as they are, broken or not.
func jsonText(text string) string {
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"', c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return `"` + b.String() + `"`
}

// TestErrorsAreJSON: whatever text of the client's an error quotes.
func TestErrorsAreJSON(t *testing.T) {
	g := start(t, oneModel+"access_log: true\n", "127.0.0.1:1")
	for _, text := range oddTexts() {
		quoted := jsonText(text)
		for _, body := range []string{`{"model":` + quoted + `}`, `{"model":"m","gateway":{` + quoted + `:1}}`, `{"model":"m","gateway":{"models":[` + quoted + `]}}`} {
			for _, path := range []string{"/v1/chat/completions", "/v1/messages"} {
				a := g.post(path, body)
				var shape struct {
					Type  string
					Error struct{ Type, Message string }
				}
				if err := json.Unmarshal([]byte(a.body), &shape); err != nil || !utf8.ValidString(a.body) || shape.Error.Message == "" {
					t.Fatalf("%s %q: %d %q: %v", path, body, a.status, a.body, err)
				}
				if a.status < 400 || (shape.Type == "error") != (path == "/v1/messages") || len(a.body) > 2500 {
					t.Errorf("%s %q: %d %q", path, body, a.status, a.body)
				}
			}
		}
	}
	for line := range strings.Lines(g.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("log: %q", line)
		}
	}
	g.lastErrors() // which panics if one is not JSON
}

// TestStreamOptionsStayJSON: those that the gateway adds to.
func TestStreamOptionsStayJSON(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	r := g.p.acquireRequest()
	r.tokens.limited, r.route, r.snapshot = true, &builtin[0], g.p.snapshot.Load()
	target := g.p.Set().Models["m"].Targets[0]
	for c := range 0x80 {
		r.body = []byte(`{"model":"m","stream":true,"stream_options":{` + jsonText("k"+string(rune(c))) + `:` + strconv.Itoa(c) + `}}`)
		if f := r.readFields(); f != nil {
			t.Fatalf("%q: %s", r.body, f.message)
		}
		var options map[string]any
		if !r.askUsage(target) || json.Unmarshal(r.options, &options) != nil || options["k"+string(rune(c))] != float64(c) || options["include_usage"] != true {
			t.Errorf("%q became %q", r.body, r.options)
		}
	}
}
