package config

import (
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// joinColons makes one text of a:b in braces. The scanner ends a name at each colon there, YAML only at
// one with a space behind it; names of models have colons.
func joinColons(tokens token.Tokens) token.Tokens {
	var joined token.Tokens
	braces := 0
	for i := 0; i < len(tokens); i++ {
		t, n := tokens[i], len(joined)
		switch t.Type {
		case token.MappingStartType:
			braces++
		case token.MappingEndType:
			braces--
		}
		if braces > 0 && n > 1 && i+1 < len(tokens) && isColonInText(joined[n-2], joined[n-1], t, tokens[i+1]) {
			joined = append(joined[:n-1], atColon(joined[n-1], tokens[i+1])...)
			i++
			continue
		}
		joined = append(joined, t)
	}
	return joined
}

// isColonInText reports whether t is a colon between two plain texts, with no space behind it.
func isColonInText(beforeText, text, t, after *token.Token) bool {
	if beforeText.Type == token.AliasType || beforeText.Type == token.AnchorType {
		return false
	}
	return t.Type == token.MappingValueType && isPlain(text) && isPlain(after) &&
		after.Position.Line == t.Position.Line && after.Position.Column == t.Position.Column+1 &&
		after.Origin[0] == after.Value[0] // a tab has no column
}

func isPlain(t *token.Token) bool {
	return t.Indicator == token.NotIndicator && t.CharacterType == token.CharacterTypeMiscellaneous &&
		t.Value != "" && t.Origin != ""
}

// atColon is the text a:b. If b has the colon that ends a name, it is the name, the colon, and the rest.
func atColon(a, b *token.Token) token.Tokens {
	name, value, isName := strings.Cut(b.Value+" ", ": ")
	name = a.Value + ":" + strings.TrimSuffix(name, " ")
	tokens := token.Tokens{token.String(name, name, a.Position)}
	if !isName {
		return tokens
	}
	at := *a.Position
	at.Column += utf8.RuneCountInString(name)
	tokens = append(tokens, token.MappingValue(&at))
	if value = strings.TrimSpace(value); value != "" {
		next := at
		next.Column += 2
		tokens = append(tokens, token.New(value, value, &next))
	}
	return tokens
}
