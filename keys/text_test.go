package keys

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestDeceptiveText(t *testing.T) {
	for _, text := range []string{"search team", "Zürich", "團隊", "مرحبا", "שלום", "می\u200cخواهم", "क्\u200dष", "👩\u200d💻", "👩🏽\u200d💻", "🏳️\u200d🌈", "no\u00a0break", "a – b"} {
		if r, bad := deceptive(text); bad {
			t.Errorf("%q is refused for %U", text, r)
		}
	}
	for _, r := range "\x00\t\n\x1b\x7f\u0085\u00ad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\U000e0001\U000e0061" {
		if got, bad := deceptive("team" + string(r) + "x"); !bad || got != r {
			t.Errorf("%U is taken: %U, %t", r, got, bad)
		}
	}
	for _, text := range []string{"a\u200db", "\u200d", "é\u200d", "\u200dé", "a\u200dé", "é\u200cb", "é\u200c\u200cé", "é \u200c é", "\xff", "a\xc3"} {
		if _, bad := deceptive(text); !bad {
			t.Errorf("%q is taken", text)
		}
	}
}

// TestDeceptiveNames are refused of a new key and of a change, which says which character it is; a
// key that has such a name from before can be changed otherwise.
func TestDeceptiveNames(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "keys.db"), still)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	refused := func(err error, field, says string) {
		t.Helper()
		var bad *FieldError
		if !errors.As(err, &bad) || bad.Field != field || !strings.Contains(bad.Message, says) {
			t.Errorf("%v, want %s: %s", err, field, says)
		}
	}
	_, _, err = s.Create(Spec{Name: "good\u202elive"})
	refused(err, "name", "it has U+202E")
	_, _, err = s.Create(Spec{Name: "x", Models: []string{"m", "m\u200b"}})
	refused(err, "models", "one has U+200B")

	old := &Spec{ID: "key_1", Prefix: "sk-sluice-abcd", Name: "a\u2066b", Models: []string{"m\u200e"}}
	record := fmt.Sprintf(`{"id":%q,"prefix":%q,"name":"a\u2066b","models":["m\u200e"],"hash":%q}`, old.ID, old.Prefix, strings.Repeat("ab", 32))
	if err := s.load(old.ID, []byte(record), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(old.ID, func(s *Spec) error { s.Disabled = true; s.Models = append(s.Models, "n"); return nil }); err != nil {
		t.Errorf("a key with an old name: %v", err)
	}
	_, err = s.Update(old.ID, func(s *Spec) error { s.Name += "\u2069"; return nil })
	refused(err, "name", "it has U+2066")
	_, err = s.Update(old.ID, func(s *Spec) error { s.Models[0] += "\u2069"; return nil })
	refused(err, "models", "one has U+200E")
}
