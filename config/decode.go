package config

import (
	"context"
	"fmt"
	"hash"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// The library decodes too, but stops at the first error; this walk over its syntax
// tree goes on, so that an operator sees everything at once.

type position struct{ line, column int }

const (
	// maxNodes bounds the work that aliases of aliases can ask for.
	maxNodes = 200_000
	// maxDepth is far above what any field needs; it stops an alias inside its own anchor.
	maxDepth = 32
	// maxName bounds a name in the file: it is in the path of all that is below it.
	maxName = 256
	// maxShown bounds a value in a finding.
	maxShown = 100
)

type decoder struct {
	ctx           context.Context // of the load, which bounds how long files are read
	file          string
	env           func(string) (string, bool)
	findings      []Finding
	warnings      []Finding
	unkept        int                 // findings beyond maxFindings
	refusedPaths  map[string]bool     // that have a finding
	positions     map[string]position // of each field that the file has, by path
	digest        hash.Hash
	files         map[string]bool   // that were read, besides the one file
	expanded      map[string]bool   // paths whose text came from the environment or a file
	emptied       map[string]string // paths whose text was empty once expanded, and how the file has it
	expandedBytes int
	rest          map[*token.Token][]ast.Node // later siblings, by the first token of their mapping or list
	long          map[*token.Token]int        // the true lengths of names that were cut short
	aliases       map[*ast.AliasNode]ast.Node // what each stands for
	nodes         int
	depth         int
	endless       bool // maxNodes or maxDepth was passed, and that was said
}

func (d *decoder) add(at position, path, format string, args ...any) {
	d.refusedPaths[path] = true
	if len(d.findings) == maxFindings {
		d.unkept++
		return
	}
	d.findings = append(d.findings, Finding{Line: at.line, Column: at.column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// at is where path stands in the file, or the nearest of its parents.
func (d *decoder) at(path string) position {
	for {
		if p, ok := d.positions[path]; ok {
			return p
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return position{1, 1}
		}
		path = path[:i]
	}
}

// over reports whether the file asks for too much; the first time it says so.
func (d *decoder) over(at position, path string) bool {
	if d.nodes <= maxNodes && d.depth <= maxDepth {
		return d.endless
	}
	if !d.endless {
		d.endless = true
		d.add(at, path, "nested too deep, or more than %d values", maxNodes)
	}
	return true
}

// shown is a value for a finding. What was put in from the environment or a file may be a
// secret and is not shown.
func (d *decoder) shown(path, value string) string {
	if d.expanded[path] {
		return "what the environment or a file has"
	}
	return quoted(value)
}

// quoted is a value in quotes, cut short if it is long.
func quoted(value string) string {
	if len(value) > maxShown {
		return strconv.Quote(value[:maxShown]) + "…"
	}
	return strconv.Quote(value)
}

func (d *decoder) decodeInto(cfg *Config, n ast.Node) { d.decode("", n, reflect.ValueOf(cfg).Elem()) }

var (
	durationType = reflect.TypeFor[Duration]()
	sizeType     = reflect.TypeFor[Size]()
	samplingType = reflect.TypeFor[Sampling]()
	urlType      = reflect.TypeFor[URL]()
	proxyType    = reflect.TypeFor[ProxyURL]()
	upstreamType = reflect.TypeFor[Upstream]()
	targetType   = reflect.TypeFor[Target]()
)

// decode puts what n says into v, or adds findings. A null leaves v at its default.
func (d *decoder) decode(path string, n ast.Node, v reflect.Value) {
	d.nodes++
	d.depth++
	defer func() { d.depth-- }()
	at := positionOf(n)
	if d.over(at, path) {
		return
	}
	if _, known := d.positions[path]; !known {
		d.positions[path] = at
	}
	n = unanchored(n)
	switch n := n.(type) {
	case *ast.AliasNode:
		if target, ok := d.aliases[n]; ok {
			d.decode(path, target, v)
		} else {
			d.refusedPaths[path] = true // there is a finding already
		}
		return
	case *ast.TagNode:
		if plainTags[n.Start.Value] {
			d.decode(path, tagged(n), v)
			return
		}
		// The text is not quoted, as a secret may begin with an exclamation mark.
		d.add(at, path, "a tag (!…) that is not known; quote a value that begins with an exclamation mark")
		return
	case *ast.NullNode:
		return
	}
	switch {
	case v.Type() == durationType, v.Type() == sizeType, v.Type() == urlType, v.Type() == proxyType:
		d.scalar(path, n, v)
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(newDefault(v.Type().Elem()))
		}
		d.decode(path, n, v.Elem())
	case v.Kind() == reflect.Struct:
		d.fields(path, n, v)
	case v.Kind() == reflect.Map:
		d.entries(path, n, v)
	case v.Kind() == reflect.Slice:
		d.items(path, n, v)
	default:
		d.scalar(path, n, v)
	}
}

var plainTags = map[string]bool{"!!str": true, "!!int": true, "!!bool": true, "!!float": true, "!!map": true, "!!seq": true}

// unanchored is n without an anchor before it.
func unanchored(n ast.Node) ast.Node {
	if anchored, ok := n.(*ast.AnchorNode); ok {
		return anchored.Value
	}
	return n
}

// tagged is what n stands before: a text, if n says so.
func tagged(n *ast.TagNode) ast.Node {
	if scalar, ok := n.Value.(ast.ScalarNode); ok && n.Start.Value == "!!str" {
		if t := scalar.GetToken(); t.Type == token.NullType || t.Type == token.BoolType {
			return ast.String(token.String(t.Value, t.Origin, t.Position))
		}
	}
	return n.Value
}

func newDefault(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	switch t {
	case upstreamType:
		v.Elem().Set(reflect.ValueOf(defaultUpstream()))
	case targetType:
		v.Elem().Set(reflect.ValueOf(defaultTarget()))
	}
	return v
}

func (d *decoder) fields(path string, n ast.Node, v reflect.Value) {
	known := map[string]reflect.Value{}
	fieldsOf(v, known)
	d.pairs(path, n, func(name, path string, at position, value ast.Node) {
		field, ok := known[name]
		if !ok {
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			d.add(at, path, "unknown field; fields here are %s", strings.Join(names, ", "))
			return
		}
		d.decode(path, value, field)
	})
}

// fieldsOf collects v's fields by name, those of embedded structs among them.
func fieldsOf(v reflect.Value, known map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			fieldsOf(v.Field(i), known)
			continue
		}
		if !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = v.Field(i)
	}
}

func (d *decoder) entries(path string, n ast.Node, v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.pairs(path, n, func(name, path string, _ position, value ast.Node) {
		entry := newDefault(v.Type().Elem()).Elem()
		if entry.Kind() == reflect.Pointer {
			entry.Set(newDefault(entry.Type().Elem()))
		}
		d.decode(path, value, entry)
		v.SetMapIndex(reflect.ValueOf(name), entry)
	})
}

// pairs calls f for each pair of the mapping n, those of merged mappings last.
func (d *decoder) pairs(path string, n ast.Node, f func(name, path string, at position, value ast.Node)) {
	seen := map[string]position{}
	var walk func(n ast.Node, merged bool)
	walk = func(n ast.Node, merged bool) {
		d.nodes++
		d.depth++
		defer func() { d.depth-- }()
		at := positionOf(n)
		if d.over(at, path) {
			return
		}
		var m *ast.MappingNode
		switch n := unanchored(n).(type) {
		case *ast.AliasNode:
			if target, ok := d.aliases[n]; ok {
				walk(target, merged)
			}
			return
		case *ast.MappingNode:
			m = n
		default:
			d.add(at, path, "must be a mapping (name: value), not %s", describe(n))
			return
		}
		var merges []ast.Node
		for _, pair := range m.Values {
			key, value := plainKey(pair.Key), pair.Value
			if d.nodes++; d.over(positionOf(key), path) {
				return // one mapping can be merged into many
			}
			if _, merge := key.(*ast.MergeKeyNode); merge {
				merges = append(merges, value)
				continue
			}
			name, ok := d.nameOf(path, key)
			if !ok {
				continue
			}
			child := name
			if path != "" {
				child = path + "." + name
			}
			at := positionOf(key)
			if first, again := seen[name]; again {
				if !merged {
					d.add(at, child, "given twice, first in line %d", first.line)
				}
				continue
			}
			seen[name] = at
			d.positions[child] = at
			f(name, child, at, value)
		}
		for _, m := range merges {
			walk(m, true)
		}
	}
	walk(n, false)
}

// plainKey is the key behind a question mark.
func plainKey(key ast.Node) ast.Node {
	if marked, ok := key.(*ast.MappingKeyNode); ok {
		return marked.Value
	}
	return key
}

func (d *decoder) nameOf(path string, key ast.Node) (name string, ok bool) {
	switch key.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		name = key.GetToken().Value
	default:
		d.add(positionOf(key), path, "a name must be plain, without anchor, tag or question mark")
		return "", false
	}
	if n := max(len(name), d.long[key.GetToken()]); n > maxName {
		d.add(positionOf(key), path, "a name must have at most %d bytes, not %d", maxName, n)
		return "", false
	}
	return name, true
}

func (d *decoder) items(path string, n ast.Node, v reflect.Value) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.add(positionOf(n), path, "must be a list, not %s", describe(n))
		return
	}
	values := reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values))
	for i, item := range list.Values {
		d.decode(path+"["+strconv.Itoa(i)+"]", item, values.Index(i))
	}
	v.Set(values)
}
