package proxy

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestWhatIsJSON holds scan against encoding/json for many small bodies made of what matters to
// it, most of them nearly right, with long plain text here and there.
func TestWhatIsJSON(t *testing.T) {
	parts := []string{`{`, `}`, `[`, `]`, `,`, `:`, `"a"`, `"model":`, `"b":`, `"x\n"`, `"\u00e9"`, `"\u12g4"`, `"\x"`, "\"\x1f\"", "\"\t\"", `"`, `\`, ` `, "\n", "\x00", "\x7f", "é", "\xff",
		`0`, `-0`, `01`, `1.5`, `1.`, `.5`, `-`, `1e9`, `1E+9`, `1e`, `-1.5e-3`, `true`, `false`, `null`, `nul`, `truee`, `NaN`, `{}`, `[]`, `[1,2]`, `{"c":{}}`,
		`"` + strings.Repeat("text ", 20) + `"`, `"` + strings.Repeat("text ", 9) + "\x1f" + `"`, `"` + strings.Repeat("w", 40) + `\"` + strings.Repeat("w", 40) + `"`}
	random := rand.New(rand.NewPCG(1, 2))
	var m members
	valid := 0
	for range 300_000 {
		var b bytes.Buffer
		if b.WriteByte('{'); random.IntN(4) > 0 {
			// Mostly a list of members, so that many are valid.
			for i := range random.IntN(4) {
				if i > 0 {
					b.WriteByte(',')
				}
				b.WriteString(`"k":` + parts[random.IntN(len(parts))])
			}
		}
		for range random.IntN(5) {
			b.WriteString(parts[random.IntN(len(parts))])
		}
		b.WriteByte('}')
		body := b.Bytes()
		if random.IntN(3) == 0 {
			body[random.IntN(len(body))] = byte(random.IntN(256))
		}
		err := scan(body, nil, &m)
		want := json.Valid(body) && bytes.TrimSpace(body)[0] == '{'
		if got := err == nil; got != want {
			t.Fatalf("%q: %v, encoding/json says %v", body, err, want)
		}
		if want {
			valid++
		}
	}
	if valid < 10_000 {
		t.Errorf("only %d of the bodies were valid", valid)
	}
}
