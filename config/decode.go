package config

import (
	"context"
	"fmt"
	"hash"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The library decodes too, but stops at the first error; this walk over its syntax
// tree goes on, so that an operator sees everything at once.

type position struct{ line, column int }

func positionOf(n *yaml.Node) position { return position{max(1, n.Line), max(1, n.Column)} }

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
	mended        int // mistakes that were set aside
	mending       int // bytes that were parsed again for it
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

func (d *decoder) decodeInto(cfg *Config, n *yaml.Node) { d.decode("", n, reflect.ValueOf(cfg).Elem()) }

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
func (d *decoder) decode(path string, n *yaml.Node, v reflect.Value) {
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
	switch {
	case n.Kind == yaml.AliasNode:
		d.decode(path, n.Alias, v)
		return
	case n.Style&yaml.TaggedStyle != 0 && !plainTags[n.Tag]:
		// The text is not quoted, as a secret may begin with an exclamation mark.
		d.add(at, path, "a tag (!…) that is not known; quote a value that begins with an exclamation mark")
		return
	case isNull(n):
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

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

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

func (d *decoder) fields(path string, n *yaml.Node, v reflect.Value) {
	known := map[string]reflect.Value{}
	fieldsOf(v, known)
	d.pairs(path, n, func(name, path string, at position, value *yaml.Node) {
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

func (d *decoder) entries(path string, n *yaml.Node, v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.pairs(path, n, func(name, path string, _ position, value *yaml.Node) {
		entry := newDefault(v.Type().Elem()).Elem()
		if entry.Kind() == reflect.Pointer {
			entry.Set(newDefault(entry.Type().Elem()))
		}
		d.decode(path, value, entry)
		v.SetMapIndex(reflect.ValueOf(name), entry)
	})
}

// pairs calls f for each pair of the mapping n, those of merged mappings last.
func (d *decoder) pairs(path string, n *yaml.Node, f func(name, path string, at position, value *yaml.Node)) {
	seen := map[string]position{}
	var walk func(n *yaml.Node, merged bool)
	walk = func(n *yaml.Node, merged bool) {
		d.nodes++
		d.depth++
		defer func() { d.depth-- }()
		switch at := positionOf(n); {
		case d.over(at, path):
			return
		case n.Kind == yaml.AliasNode:
			walk(n.Alias, merged)
			return
		case n.Kind != yaml.MappingNode:
			d.add(at, path, "must be a mapping (name: value), not %s", describe(n))
			return
		}
		var merges []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if d.nodes++; d.over(positionOf(key), path) {
				return // one mapping can be merged into many
			}
			if key.ShortTag() == "!!merge" {
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

func (d *decoder) nameOf(path string, key *yaml.Node) (name string, ok bool) {
	switch {
	case key.Kind != yaml.ScalarNode, key.Anchor != "", key.Style&yaml.TaggedStyle != 0, isNull(key):
		d.add(positionOf(key), path, "a name must be plain, without anchor, tag or question mark")
	case len(key.Value) > maxName:
		d.add(positionOf(key), path, "a name must have at most %d bytes, not %d", maxName, len(key.Value))
	default:
		return key.Value, true
	}
	return "", false
}

func (d *decoder) items(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.add(positionOf(n), path, "must be a list, not %s", describe(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.decode(path+"["+strconv.Itoa(i)+"]", item, list.Index(i))
	}
	v.Set(list)
}
