package config

import (
	"encoding"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// scalar puts a string, number or boolean into v. What stands in the file, never what
// it expands to, is quoted in findings: it may be a secret.
func (d *decoder) scalar(path string, n ast.Node, v reflect.Value) {
	at := positionOf(n.GetToken())
	var text string
	quoted := false
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
		quoted = n.Token != nil && n.Token.Type != token.StringType
	case *ast.LiteralNode:
		text, quoted = n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		text = n.GetToken().Value
	default:
		d.add(at, path, "must be %s, not %s", wanted(v), describe(n))
		return
	}
	raw := text
	expanded := false
	if _, isString := n.(ast.ScalarNode); isString && strings.Contains(text, "${") {
		var ok bool
		if text, ok = d.expand(path, at, text); !ok {
			return
		}
		expanded = true
		d.expanded[path] = true
	}
	bad := func() {
		d.add(at, path, "must be %s, not %q", wanted(v), raw)
	}
	switch {
	case v.Type() == durationType:
		dur, err := time.ParseDuration(text)
		if err != nil || dur <= 0 {
			bad()
			return
		}
		v.SetInt(int64(dur))
	case v.Type() == sizeType:
		size, ok := parseSize(text)
		if !ok {
			bad()
			return
		}
		v.SetInt(size)
	case v.Type() == urlType:
		u, err := url.Parse(text)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
			d.add(at, path, "must be %s", wanted(v)) // not quoted: it may hold a password
			return
		}
		v.Set(reflect.ValueOf(URL{*u}))
	case v.Kind() == reflect.String:
		if _, isBool := n.(*ast.BoolNode); isBool {
			bad()
			return
		}
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		if (text != "true" && text != "false") || quoted && !expanded {
			bad()
			return
		}
		v.SetBool(text == "true")
	case v.Kind() == reflect.Int:
		i, err := strconv.ParseInt(text, 10, 32)
		if err != nil || quoted && !expanded {
			bad()
			return
		}
		v.SetInt(i)
	}
}

// wanted describes what v takes.
func wanted(v reflect.Value) string {
	switch {
	case v.Type() == durationType:
		return `a duration above zero such as "30s" or "1m30s"`
	case v.Type() == sizeType:
		return `a size such as "10MiB" or a number of bytes`
	case v.Type() == urlType:
		return `an http:// or https:// URL with a host and without a query or a fragment`
	case v.Kind() == reflect.Bool:
		return "true or false"
	case v.Kind() == reflect.Int:
		return "a whole number"
	}
	return "a string"
}

// describe names what n is, without its text: it may be a secret in the wrong place.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	}
	return "a string"
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}

func parseSize(text string) (int64, bool) {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimRight(digits, " "), 10, 64)
		return n * unit.bytes, err == nil && n > 0 && n <= (1<<50)/unit.bytes
	}
	return 0, false
}

// MarshalText writes the size with the largest binary unit that divides it.
func (s Size) MarshalText() ([]byte, error) {
	for _, unit := range []struct {
		suffix string
		bytes  Size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s >= unit.bytes && s%unit.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", s/unit.bytes, unit.suffix), nil
		}
	}
	return strconv.AppendInt(nil, int64(s), 10), nil
}

var _ encoding.TextMarshaler = Size(0)
