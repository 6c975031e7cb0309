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
	at := positionOf(n)
	raw, typed, ok := scalarText(n)
	if !ok {
		d.add(at, path, "must be %s, not %s", wanted(v), describe(n))
		return
	}
	if strings.ContainsRune(raw, setAside) {
		d.refusedPaths[path] = true
		return
	}
	text := raw
	if strings.Contains(raw, "${") {
		if text, ok = d.expand(path, at, raw); !ok {
			return
		}
		// The environment has only text, so it may stand for a number too.
		typed, d.expanded[path] = true, true
		if text == "" {
			d.emptied[path] = raw
		}
	}
	switch _, isBool := n.(*ast.BoolNode); {
	case v.Type() == urlType:
		if !putURL(v, text) {
			d.add(at, path, "must be %s", wanted(v)) // not quoted: it may hold a password
		}
	case v.Type() == proxyType:
		proxy, good := parseProxy(text)
		if !good {
			d.add(at, path, "must be %s", wanted(v)) // the same
		}
		v.Set(reflect.ValueOf(proxy))
	case v.Kind() == reflect.String && !isBool:
		v.SetString(text)
	case !put(v, text, typed):
		d.add(at, path, "must be %s, not %s", wanted(v), quoted(raw))
	}
}

// scalarText is the text of a scalar; typed is false for one in quotes, which is text and
// no number, whatever it looks like.
func scalarText(n ast.Node) (text string, typed, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, n.Token.Type == token.StringType, true
	case *ast.LiteralNode:
		return n.Value.Value, false, true
	case ast.ScalarNode:
		return n.GetToken().Value, true, true
	}
	return "", false, false
}

// put reads text as v's type. False, and v unchanged, if it cannot be.
func put(v reflect.Value, text string, typed bool) (ok bool) {
	var n int64
	switch {
	case v.Type() == durationType:
		d, err := time.ParseDuration(text)
		n, ok = int64(d), err == nil && d > 0
	case v.Type() == sizeType:
		n, ok = parseSize(text)
	case v.Type() == samplingType:
		part, good := parseSampling(text)
		if good && typed {
			v.SetFloat(part)
		}
		return good && typed
	case v.Kind() == reflect.Int:
		i, err := strconv.ParseInt(text, 10, 32)
		n, ok = i, err == nil && typed
	case v.Kind() == reflect.Bool && typed && (text == "true" || text == "false"):
		v.SetBool(text == "true")
		return true
	}
	if ok {
		v.SetInt(n)
	}
	return ok
}

func putURL(v reflect.Value, text string) bool {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return false
	}
	v.Set(reflect.ValueOf(URL{*u}))
	return true
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
	case v.Type() == proxyType:
		return "the http://, https:// or socks5:// URL of a proxy, or its host:port"
	case v.Type() == samplingType:
		return "true, false, or a part between 0 and 1 such as 0.05"
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
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	}
	return "a string"
}

func parseSampling(text string) (part float64, ok bool) {
	switch text {
	case "true":
		return 1, true
	case "false":
		return 0, true
	}
	part, err := strconv.ParseFloat(text, 64)
	return part, err == nil && part >= 0 && part <= 1
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
