package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Finding is one thing that is wrong with a file.
type Finding struct {
	Line, Column int
	Path         string // of the field, as in models.gpt-4o.targets[0].upstream
	Message      string
}

func (f *Finding) in(file string) string {
	at := fmt.Sprintf("%s:%d:%d: ", file, f.Line, f.Column)
	if f.Path != "" {
		at += f.Path + ": "
	}
	return at + f.Message
}

// Error is what is wrong with a file.
type Error struct {
	File     string
	Findings []Finding // at least one, in the file's order
	Others   int       // findings beyond maxFindings, which are counted only
}

const (
	// maxFindings bounds what is kept, and shownFindings what is printed.
	maxFindings   = 1000
	shownFindings = 100
)

func (e *Error) Error() string {
	shown := e.Findings[:min(len(e.Findings), shownFindings)]
	lines := make([]string, len(shown), len(shown)+1)
	for i, f := range shown {
		lines[i] = f.in(e.File)
	}
	if more := len(e.Findings) - len(shown) + e.Others; more > 0 {
		lines = append(lines, fmt.Sprintf("%s: and %d more", e.File, more))
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
	d := &decoder{ctx: ctx, file: path, env: env, positions: map[string]position{}, expanded: map[string]bool{}, emptied: map[string]string{},
		refusedPaths: map[string]bool{}, files: map[string]bool{}, aliases: map[*ast.AliasNode]ast.Node{}, digest: sha256.New()}
	d.addDigest(path, b)
	cfg := Default()
	body, valid := d.document(b)
	if body != nil {
		d.decodeInto(cfg, body)
	}
	if valid {
		d.fitBody(&cfg.Limits)
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
		return nil, digest, &Error{File: path, Findings: d.findings, Others: d.unkept}
	}
	for _, f := range d.warnings {
		cfg.warnings = append(cfg.warnings, f.in(path))
	}
	cfg.files = slices.Sorted(maps.Keys(d.files))
	return cfg, digest, nil
}

// addDigest adds a file to the digest, so that no two sets of files have the same.
func (d *decoder) addDigest(name string, content []byte) {
	fmt.Fprintf(d.digest, "%d %s %d ", len(name), name, len(content))
	d.digest.Write(content)
}
