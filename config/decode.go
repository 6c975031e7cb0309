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

func positionOf(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// maxNodes bounds the work that aliases of aliases can ask for.
const maxNodes = 200_000

// maxDepth is far above what any field needs; it stops an alias inside its own anchor.
const maxDepth = 32

type decoder struct {
	ctx           context.Context // of the load, which bounds how long files are read
	file          string
	env           func(string) (string, bool)
	findings      []Finding
	positions     map[string]position // of each field that the file has, by path
	anchors       map[string]ast.Node
	digest        hash.Hash
	files         []string        // that were read, besides the one file
	expanded      map[string]bool // paths whose text came from the environment or a file
	expandedBytes int
	nodes         int
	depth         int
	endless       bool // maxNodes or maxDepth was passed, and that was said
	broken        bool // the file is no YAML: nothing more can be said of it
}

func (d *decoder) add(at position, path, format string, args ...any) {
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
		d.add(at, path, "nested too deep, or too many aliases")
	}
	return true
}

// shown is a value for a finding. What was put in from the environment or a file may be a
// secret and is not shown.
func (d *decoder) shown(path, value string) string {
	if d.expanded[path] {
		return "what the environment or a file has"
	}
	return strconv.Quote(value)
}

// anchorsIn remembers every anchor below n.
func (d *decoder) anchorsIn(n ast.Node) {
	ast.Walk(anchorVisitor{d}, n)
}

type anchorVisitor struct{ d *decoder }

func (v anchorVisitor) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		name := a.Name.GetToken().Value
		if v.d.anchors[name] != nil {
			v.d.add(positionOf(a.GetToken()), "", "an anchor is there twice under one name; give each its own")
		}
		v.d.anchors[name] = a.Value
	}
	return v
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
	at := positionOf(n.GetToken())
	if d.over(at, path) {
		return
	}
	if _, known := d.positions[path]; !known {
		d.positions[path] = at
	}
	switch n := n.(type) {
	case *ast.AnchorNode:
		d.decode(path, n.Value, v)
		return
	case *ast.TagNode:
		// What stands behind an unknown one would be lost; the text is not quoted, as a
		// secret may begin with an exclamation mark.
		if !plainTags[n.Start.Value] {
			d.add(at, path, "a tag (!…) that is not known; quote a value that begins with an exclamation mark")
			return
		}
		d.decode(path, n.Value, v)
		return
	case *ast.AliasNode:
		target, ok := d.anchors[n.Value.GetToken().Value]
		if !ok {
			d.add(at, path, "an alias (*…) without its anchor; quote a value that begins with an asterisk")
			return
		}
		d.decode(path, target, v)
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
		if d.over(positionOf(n.GetToken()), path) {
			return
		}
		var values []*ast.MappingValueNode
		switch n := n.(type) {
		case *ast.MappingNode:
			values = n.Values
		case *ast.MappingValueNode:
			values = []*ast.MappingValueNode{n}
		case *ast.AnchorNode:
			walk(n.Value, merged)
			return
		case *ast.AliasNode:
			if target, ok := d.anchors[n.Value.GetToken().Value]; ok && merged {
				walk(target, merged)
				return
			}
			d.add(positionOf(n.GetToken()), path, "an alias (*…) without its anchor")
			return
		default:
			d.add(positionOf(n.GetToken()), path, "must be a mapping (name: value), not %s", describe(n))
			return
		}
		var merges []ast.Node
		for _, pair := range values {
			if pair.Key.IsMergeKey() {
				merges = append(merges, pair.Value)
				continue
			}
			switch pair.Key.(type) {
			case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			default:
				d.add(positionOf(pair.Key.GetToken()), path, "a name must be plain, without anchor, tag or question mark")
				continue
			}
			name := pair.Key.GetToken().Value
			child := name
			if path != "" {
				child = path + "." + name
			}
			at := positionOf(pair.Key.GetToken())
			if first, again := seen[name]; again {
				if !merged {
					d.add(at, child, "given twice, first in line %d", first.line)
				}
				continue
			}
			seen[name] = at
			d.positions[child] = at
			f(name, child, at, pair.Value)
		}
		for _, m := range merges {
			walk(m, true)
		}
	}
	walk(n, false)
}

func (d *decoder) items(path string, n ast.Node, v reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.add(positionOf(n.GetToken()), path, "must be a list, not %s", describe(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		if item == nil {
			continue
		}
		d.decode(path+"["+strconv.Itoa(i)+"]", item, list.Index(i))
	}
	v.Set(list)
}
