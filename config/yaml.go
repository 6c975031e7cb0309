package config

import (
	"bytes"
	"errors"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// syntaxError is why a file is not YAML, or none that is read.
type syntaxError struct {
	at      position
	message string
}

func (e *syntaxError) Error() string { return e.message }

func mistake(at *token.Token, message string) error { return &syntaxError{tokenAt(at), message} }

// notYAML is an error for what the library says. What it quotes may be a secret.
func notYAML(at *token.Token, message string) error {
	message, _, _ = strings.Cut(message, `"`)
	return mistake(at, "not valid YAML: "+strings.ReplaceAll(strings.TrimRight(message, ": "), "\t", `\t`))
}

var byteOrderMark = []byte("\xEF\xBB\xBF")

// document parses the YAML and returns its one document's body, nil for an empty one. It is not
// valid if the file is no YAML: then nothing more can be said of it.
func (d *decoder) document(b []byte) (body ast.Node, valid bool) {
	defer func() {
		// A configuration must never end the process, whatever the parser makes of it.
		if r := recover(); r != nil {
			d.add(position{1, 1}, "", "not YAML that can be read: %v", r)
			body, valid = nil, false
		}
	}()
	body, err := d.parsed(bytes.TrimPrefix(b, byteOrderMark))
	var bad *syntaxError
	if errors.As(err, &bad) {
		d.add(bad.at, "", "%s", bad.message)
	}
	return body, err == nil
}

func (d *decoder) parsed(b []byte) (ast.Node, error) {
	if err := scannable(b); err != nil {
		return nil, err
	}
	tokens, err := d.mended(b)
	if err != nil {
		return nil, err
	}
	documents := documentsOf(tokens)
	if len(documents) == 0 {
		return nil, nil
	}
	if len(documents) > 1 {
		d.add(tokenAt(beginning(documents[1])), "", "a second document; the file must hold one")
	}
	p, err := partsOf(documents[0])
	if err != nil {
		return nil, err
	}
	d.long = p.long
	body, err := d.parseParts(p.parts)
	if body == nil || err != nil {
		return nil, err
	}
	d.join(body, map[string]ast.Node{})
	if len(d.rest) > 0 {
		return nil, &syntaxError{position{1, 1}, "not YAML that can be read"}
	}
	return body, nil
}

// beginning is the first token of a document after its marker.
func beginning(document token.Tokens) *token.Token {
	if document[0].Type == token.DocumentHeaderType {
		return document[1]
	}
	return document[0]
}

// parseParts parses the parts of a document and returns the body of the first; the others go to rest.
// The error is the first in the file.
func (d *decoder) parseParts(parts []part) (body ast.Node, first error) {
	d.rest = map[*token.Token][]ast.Node{}
	var at position
	for _, part := range parts {
		n, err := parsePart(part.tokens)
		var bad *syntaxError
		switch {
		case errors.As(err, &bad):
			if first == nil || bad.at.before(at) {
				first, at = err, bad.at
			}
		case part.first == nil:
			body = n
		default:
			d.rest[part.first] = append(d.rest[part.first], n)
		}
	}
	return body, first
}

func parsePart(tokens token.Tokens) (body ast.Node, err error) {
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	var bad interface {
		GetToken() *token.Token
		GetMessage() string
	}
	switch {
	case errors.As(err, &bad):
		return nil, notYAML(bad.GetToken(), bad.GetMessage())
	case err != nil:
		return nil, notYAML(nil, "it cannot be read")
	}
	for _, document := range file.Docs {
		if _, directive := document.Body.(*ast.DirectiveNode); document.Body != nil && !directive {
			body = document.Body
		}
	}
	return body, nil
}

// join puts the parts below n together, and finds the anchor of each alias: the nearest before it.
func (d *decoder) join(n ast.Node, anchors map[string]ast.Node) {
	switch n := n.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			for _, more := range d.restOf(n.Values[0].Key.GetToken()) {
				if more, ok := more.(*ast.MappingNode); ok {
					n.Values = append(n.Values, more.Values...)
				}
			}
		}
		for _, pair := range n.Values {
			d.join(pair.Key, anchors)
			d.join(pair.Value, anchors)
		}
	case *ast.SequenceNode:
		for _, more := range d.restOf(n.Start) {
			if more, ok := more.(*ast.SequenceNode); ok {
				n.Values = append(n.Values, more.Values...)
			}
		}
		for _, item := range n.Values {
			d.join(item, anchors)
		}
	case *ast.AnchorNode:
		anchors[n.Name.GetToken().Value] = n.Value
		d.join(n.Value, anchors)
	case *ast.TagNode:
		d.join(n.Value, anchors)
	case *ast.MappingKeyNode:
		d.join(n.Value, anchors)
	case *ast.AliasNode:
		if target := anchors[n.Value.GetToken().Value]; target != nil {
			d.aliases[n] = target
			return
		}
		d.add(positionOf(n), "", "an alias (*…) without its anchor; quote a value that begins with an asterisk")
	}
}

// restOf takes the parts of the mapping or list that begins with first.
func (d *decoder) restOf(first *token.Token) []ast.Node {
	more := d.rest[first]
	delete(d.rest, first)
	return more
}

// positionOf is where n begins.
func positionOf(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return positionOf(m.Values[0].Key)
	}
	return tokenAt(n.GetToken())
}

func tokenAt(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(1, t.Position.Line), max(1, t.Position.Column)}
}

func (p position) before(other position) bool {
	return p.line < other.line || p.line == other.line && p.column < other.column
}
