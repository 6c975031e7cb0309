package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"sluice/internal/upstreamtest"
	"sluice/jsontext"
)

// TestFold holds fold against Unicode's simple folding and mapping of case, for every character.
func TestFold(t *testing.T) {
	for c := rune(0); c <= unicode.MaxRune; c++ {
		want := byte(0)
		likes := []rune{c, unicode.ToLower(c), unicode.ToUpper(c)}
		for like := unicode.SimpleFold(c); like != c; like = unicode.SimpleFold(like) {
			likes = append(likes, like)
		}
		for _, like := range likes {
			if like <= unicode.MaxASCII {
				want = byte(unicode.ToLower(like))
			}
		}
		if got := fold(c); got != want {
			t.Errorf("%q: %q, want %q", c, got, want)
		}
	}
}

// TestPlainName: each byte at each place, with and without something behind the name.
func TestPlainName(t *testing.T) {
	for length := 1; length < 20; length++ {
		for at := range length {
			for c := range 256 {
				name := bytes.Repeat([]byte("az_09-. "), 3)[:length:length]
				name[at] = byte(c)
				roomy := append(bytes.Clone(name), "\"\\\xffA:12345"...)[:length]
				plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_'
				odd := 'A' <= c && c <= 'Z' || c == '\\' || c > 0x7f
				for _, b := range [][]byte{name, roomy} {
					if got := plainName(b); got && odd || !got && plain {
						t.Fatalf("%q: %v", b, got)
					}
				}
			}
		}
	}
}

// spellings are ways to write name in JSON that decode to it, or to it but for case.
func spellings(name string) (exact, folded []string) {
	for i, c := range name {
		exact = append(exact, name[:i]+fmt.Sprintf(`\u%04x`, c)+name[i+1:], name[:i]+fmt.Sprintf(`\u%04X`, c)+name[i+1:])
		like := []rune{unicode.ToUpper(c)}
		switch c {
		case 's':
			like = append(like, 'ſ')
		case 'k':
			like = append(like, '\u212a')
		case 'i':
			like = append(like, 'İ', 'ı')
		}
		for _, l := range like {
			if l != c {
				folded = append(folded, name[:i]+string(l)+name[i+1:], name[:i]+fmt.Sprintf(`\u%04x`, l)+name[i+1:])
			}
		}
	}
	return exact, append(folded, strings.ToUpper(name))
}

// TestNamesOf: every spelling of each of our names is found, and each that is ours only when case is
// folded, or an upstream's model_field, is odd.
func TestNamesOf(t *testing.T) {
	fields := []string{"deployment", "model.name"}
	check := func(text string, want name, why oddity) {
		t.Helper()
		if got, odd := nameOf([]byte(text), fields); got != want || odd != why {
			t.Errorf("%s: %d, %d, want %d, %d", text, got, odd, want, why)
		}
	}
	for n := nameModel; n < names; n++ {
		check(nameTexts[n], n, notOdd)
		exact, folded := spellings(nameTexts[n])
		for _, text := range exact {
			check(text, n, notOdd)
		}
		for _, text := range folded {
			check(text, n, oddCase)
		}
		check(nameTexts[n]+"s", nameOther, notOdd)
		check(nameTexts[n]+"É", nameOther, notOdd)
		check(nameTexts[n]+`\u0041`, nameOther, notOdd)
	}
	for _, field := range fields {
		exact, folded := spellings(field)
		for _, text := range append(append(exact, folded...), field) {
			check(text, nameOther, oddField)
		}
	}
	long := strings.Repeat("a", 1<<10)
	for _, text := range []string{"", "a", "Messages", "é", `\u00e9`, "mod\ufffdel", `\ufffd`, `\ud83d\ude00`, "😀", long, "A" + long, long + `\n`, `\"`, `\\model`, `\/`} {
		check(text, nameOther, notOdd)
	}
	for _, text := range []string{"\xff", "a\xc3", "mode\xcc", "\xed\xa0\x80", `\u0000`, `model\u0000`, "model\ufeff", `\ufeffmodel`, `\uFEFF`,
		`\ud800`, `\udc00`, `\ud800x`, `\ud800\u0041`, `\ud800\ud800`, `A\udfff`, long + "\xff", long + `\u0000`} {
		check(text, nameOther, oddText)
	}
}

// TestTextOf holds the decoding of strings against encoding/json.
func TestTextOf(t *testing.T) {
	for _, value := range []string{`""`, `"m"`, `"\""`, `"\\\/\b\f\n\r\t"`, `"a\u00e9b"`, `"\ud83d\ude00"`, `"\ud83dx"`, `"\ud83d\u0041"`, `"\ude00"`, `"é\u0000é"`, `"\ud83d\ud83d\ude00"`, `"x\ud83d"`} {
		var want string
		if err := json.Unmarshal([]byte(value), &want); err != nil {
			t.Fatal(err)
		}
		if got, ok := jsontext.Text([]byte(value)); string(got) != want || !ok {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
	for _, value := range []string{`1`, `null`, `{}`, `[""]`} {
		if _, ok := jsontext.Text([]byte(value)); ok {
			t.Errorf("%s is a string", value)
		}
	}
}

const fieldModel = `
retry: {max_retries: 0}
admin: {token: 0123456789abcdef}
upstreams: {up: {base_url: "http://UP/base", model_field: Deployment}, other: {base_url: "http://UP/other", model_field: model}}
models: {m: {targets: [{upstream: up, model: up-m}]}, o: {targets: [{upstream: other, model: up-o}]}}
`

// TestNamesAreReadInOneWay: what another parser could take for one of our names is refused, by name.
func TestNamesAreReadInOneWay(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, fieldModel, up.Address())
	for _, test := range []struct{ member, param, says string }{
		{`"Model":"x"`, "model", `has "Model", which some upstreams read as model; write model`},
		{`"MODEL":"x"`, "model", `"MODEL"`},
		{`"Mod\u0065l":"x"`, "model", `"Model"`},
		{`"\u004dodel":"x"`, "model", `"Model"`},
		{`"Model_ID":"x"`, "model_id", "write model_id"},
		{`"Stream":true`, "stream", "write stream"},
		{`"ſtream":true`, "stream", `"ſtream"`},
		{`"\u017ftream":true`, "stream", `"ſtream"`},
		{`"Gateway":{}`, "gateway", "write gateway"},
		{`"Stream_Options":{}`, "stream_options", "write stream_options"},
		{`"Max_Tokens":1`, "max_tokens", "write max_tokens"},
		{"\"max_to\u212aens\":1", "max_tokens", "write max_tokens"},
		{`"MAX_COMPLETION_TOKENS":1`, "max_completion_tokens", ""},
		{`"max_Output_tokens":1`, "max_output_tokens", ""},
		{`"N":1`, "n", ""},
		{`"Best_of":1`, "best_of", ""},
		{`"deployment":"x"`, "deployment", `"deployment" is the field in which the gateway names the model to an upstream (model_field); leave it out and send model`},
		{`"Deployment":"x"`, "Deployment", "model_field"},
		{`"d\u0065ployment":"x"`, "deployment", "model_field"},
		{`"DEPLOYMENT":null`, "DEPLOYMENT", "model_field"},
		{"\"model\xff\":1", "", `"model�"`},
		{`"model\u0000":1`, "", `"model\x00"`},
		{"\"\ufeffmodel\":1", "", `"\ufeffmodel"`},
		{`"x\ud800":1`, "", "half a surrogate pair"},
		{`"model":"m"`, "model", "model is in the body more than once"},
		{`"\u006dodel":"m"`, "model", "model is in the body more than once"},
	} {
		for _, body := range []string{`{"model":"m",` + test.member + `}`, `{` + test.member + `,"a":{"b":1},"model":"m"}`} {
			t.Run(fmt.Sprintf("%q", body), func(t *testing.T) {
				errorRow{400, "invalid_request_error", test.param, "invalid_request", test.says}.check(t, g.post("/v1/chat/completions", body))
			})
		}
	}
	if n := len(up.Requests()); n != 0 {
		t.Errorf("%d went upstream", n)
	}
	// What is not at the top level, or spelled in another way, is nobody's but the upstream's.
	for i, test := range []struct{ in, want string }{
		{`{"mod\u0065l":"m","a":{"deployment":"x","Model":"y","\ud800":1}}`, `{"Deployment":"up-m","a":{"deployment":"x","Model":"y","\ud800":1}}`},
		{`{"model":"o","models":1,"Modell":2,"":3,"é":4,"\ud83d\ude00":5}`, `{"model":"up-o","models":1,"Modell":2,"":3,"é":4,"\ud83d\ude00":5}`},
		{`{"model_id":"o","x":"\u0000\ufeff"}`, `{"model":"up-o","x":"\u0000\ufeff"}`},
	} {
		if a := g.post("/v1/chat/completions", test.in); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if got := string(up.Requests()[i].Body); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

// TestNullIsAbsent, of the members that are the gateway's to read.
func TestNullIsAbsent(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := start(t, oneModel, up.Address())
	for i, test := range []struct{ in, want string }{
		{`{"model":"m","stream":null}`, `{"model":"up-m","stream":null}`},
		{`{"model":"m","gateway":null,"a":1}`, `{"model":"up-m","a":1}`},
		{`{"model":"m","gateway":{"models":null,"max_retries":null,"timeout":null,"first_byte_timeout":null}}`, `{"model":"up-m"}`},
	} {
		if a := g.post("/v1/chat/completions", test.in); a.status != 200 || a.body != okAnnotated {
			t.Errorf("%d %s", a.status, a.body)
			continue
		}
		if got := string(up.Requests()[i].Body); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}
