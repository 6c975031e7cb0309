package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Finding is one thing that is wrong with a file.
type Finding struct {
	Line, Column int
	Path         string // of the field, as in models.gpt-4o.targets[0].upstream
	Message      string
}

// Error is everything that is wrong with a file.
type Error struct {
	File     string
	Findings []Finding
}

func (e *Error) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		at := fmt.Sprintf("%s:%d:%d: ", e.File, f.Line, f.Column)
		if f.Path != "" {
			at += f.Path + ": "
		}
		lines[i] = at + f.Message
	}
	return strings.Join(lines, "\n")
}

// Digest tells two contents apart: of the file and of all files it names by ${file:…}.
type Digest [sha256.Size]byte

// Load reads the file, and the files that it names, until ctx ends. The error is an *Error, or says
// why the file cannot be read.
func Load(ctx context.Context, path string) (*Config, Digest, error) {
	ctx, cancel := context.WithTimeout(ctx, fileTime)
	defer cancel()
	b, err := readFile(ctx, path)
	if err != nil {
		return nil, Digest{}, fmt.Errorf("cannot read config: %w", err)
	}
	return parse(ctx, path, b, os.LookupEnv)
}

func parse(ctx context.Context, path string, b []byte, env func(string) (string, bool)) (*Config, Digest, error) {
	d := &decoder{ctx: ctx, file: path, env: env, positions: map[string]position{}, anchors: map[string]ast.Node{}, expanded: map[string]bool{}}
	d.digest = sha256.New()
	d.addDigest(path, b)
	cfg := Default()
	if body := d.document(bytes.TrimPrefix(b, byteOrderMark)); body != nil {
		d.anchorsIn(body)
		d.decodeInto(cfg, body)
	}
	if len(d.findings) == 0 || !d.broken {
		d.check(cfg)
	}
	var digest Digest
	d.digest.Sum(digest[:0])
	if len(d.findings) > 0 {
		slices.SortStableFunc(d.findings, func(a, b Finding) int {
			if a.Line != b.Line {
				return a.Line - b.Line
			}
			return a.Column - b.Column
		})
		return nil, digest, &Error{File: path, Findings: d.findings}
	}
	cfg.files = d.files
	return cfg, digest, nil
}

var byteOrderMark = []byte("\xEF\xBB\xBF")

// addDigest adds a file to the digest, so that no two sets of files have the same.
func (d *decoder) addDigest(name string, content []byte) {
	fmt.Fprintf(d.digest, "%d %s %d ", len(name), name, len(content))
	d.digest.Write(content)
}

const (
	// maxBrackets is far above what any field needs. The parser's time grows much faster
	// than the nesting.
	maxBrackets = 64
)

// tooNested reports whether brackets, or dashes in one line, nest deeper than maxBrackets.
// It does not know strings, and so may count some that are text.
func tooNested(b []byte) bool {
	depth, dashes := 0, 0
	for i, c := range b {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '\n':
			dashes = 0
		case '-', '?', ':':
			if i+1 < len(b) && b[i+1] == ' ' {
				dashes++
			}
		}
		if depth > maxBrackets || dashes > 4*maxBrackets {
			return true
		}
	}
	return false
}

// document parses the YAML and returns its one document's body, nil for an empty or a
// broken one.
func (d *decoder) document(b []byte) (body ast.Node) {
	d.broken = true
	defer func() {
		// The parser is not proof against every input; a config file must never
		// take the process down.
		if r := recover(); r != nil {
			d.add(position{1, 1}, "", "not YAML that can be read: %v", r)
			body = nil
		}
	}()
	switch {
	case tooNested(b):
		d.add(position{1, 1}, "", "nested too deep")
		return nil
	}
	file, err := parser.ParseBytes(b, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var at interface {
			GetToken() *token.Token
			GetMessage() string
		}
		if errors.As(err, &at) && at.GetToken() != nil {
			// What the library quotes may be a secret.
			message, _, _ := strings.Cut(at.GetMessage(), `"`)
			d.add(positionOf(at.GetToken()), "", "not valid YAML: %s", strings.TrimRight(message, ": "))
		} else {
			d.add(position{1, 1}, "", "not valid YAML: %s", firstLine(err.Error()))
		}
		return nil
	}
	d.broken = false
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			d.add(positionOf(doc.Body.GetToken()), "", "a second document; the file must hold one")
			break
		}
		body = doc.Body
	}
	return body
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
