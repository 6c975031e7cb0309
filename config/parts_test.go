package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParts: what is parsed in parts is all there, in order, and its anchors are.
func TestParts(t *testing.T) {
	const n = 3*partSize + 1
	var flow, block, list, paths, nested strings.Builder
	for i := range n {
		fmt.Fprintf(&flow, "  f%d: {targets: [{upstream: up}]}\n", i)
		fmt.Fprintf(&block, "  b%d:\n    targets:\n    - upstream: up\n    fallbacks: &a%d\n", i, i)
		fmt.Fprintf(&list, "      - {upstream: up, model: m%d}\n", i)
		fmt.Fprintf(&paths, "- /p%d # one\n", i)
		fmt.Fprintf(&nested, "      x-%d: v%d\n", i, i)
	}
	cfg := mustParse(t, "admin: {token: \"${TOKEN}\"}\npaths:\n"+paths.String()+
		"upstreams:\n  up:\n    base_url: &url http://h/v1\n    headers:\n"+nested.String()+
		"    auth_header: api-key\n  last: {base_url: *url}\n"+
		"models:\n"+flow.String()+block.String()+"  l:\n    targets:\n"+list.String()+"    max_retries: 2\nlisten: \":7\"\n")
	if len(cfg.Models) != 2*n+1 || len(cfg.Paths) != n || cfg.Listen != ":7" {
		t.Errorf("%d models, %d paths, %s", len(cfg.Models), len(cfg.Paths), cfg.Listen)
	}
	up := cfg.Upstreams["up"]
	if len(up.Headers) != n || up.AuthHeader != "api-key" || cfg.Upstreams["last"].BaseURL.Host != "h" {
		t.Errorf("%d headers: %+v", len(up.Headers), up)
	}
	l := cfg.Models["l"]
	if len(l.Targets) != n || l.MaxRetries == nil || *l.MaxRetries != 2 {
		t.Fatalf("l is %+v", l)
	}
	for i, target := range l.Targets {
		if target.Model != fmt.Sprintf("m%d", i) || cfg.Paths[i] != fmt.Sprintf("/p%d", i) {
			t.Fatalf("target %d is %s, path %s", i, target.Model, cfg.Paths[i])
		}
	}
}

// TestColonsInBraces: a name with a colon needs no quotes where YAML asks for none.
func TestColonsInBraces(t *testing.T) {
	cfg := mustParse(t, `
admin: {token: "${TOKEN}", listen: :7}
upstreams: {up: {base_url: http://h:8/v1, query: {x:y: a:b, "z": c, w: d:e:f}}}
models: {llama3:8b: {targets: [{upstream: up}]}, a:b:c: {targets: [{upstream: up, model: x:y}], fallbacks: [llama3:8b]}}
`)
	got := []any{cfg.Admin.Listen, cfg.Upstreams["up"].BaseURL.Host, cfg.Models["a:b:c"].Fallbacks, len(cfg.Models),
		cfg.Models["a:b:c"].Targets[0].Model}
	for _, name := range []string{"x:y", "z", "w"} {
		got = append(got, cfg.Upstreams["up"].Query[name].Reveal())
	}
	want := []any{":7", "h:8", []string{"llama3:8b"}, 2, "x:y", "a:b", "c", "d:e:f"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestWhatIsNotScanned: what would take long, and what would be lost, is refused where it stands.
func TestWhatIsNotScanned(t *testing.T) {
	many := func(text string) string { return strings.Repeat(text, maxNesting+1) }
	for text, want := range map[string]string{
		"listen: \"" + many("\t") + "\"": "1:110: more than 100 tabs in a line; use spaces",
		"listen: " + many("<"):           "1:109: more than 100 characters < in a row",
		"listen: |\n x\n" + many("\n"):   "103:1: more than 100 empty lines in a row",
		"listen: a\n# \xff":              "2:3: not UTF-8",
		"listen: \"a\x01\"":              "1:11: a control character; in double quotes it can be written as an escape",
		"paths: " + many("["):            "1:134: nested too deep",
		many("- "):                       "1:255: nested too deep",
		"a: [b: c\n d: e]":               "2:2: not valid YAML: ',' or a closing bracket must be specified",
		many("!\n"):                      "5:1: not valid YAML: too many anchors and tags in a row",
		"paths: [" + strings.Repeat("a,", maxTokens/2) + "]": "1:300006: more than 300000 names, values, brackets, colons, commas and dashes",
	} {
		_, _, err := parse(t.Context(), "c", []byte(text), getenv)
		var bad *Error
		if !errors.As(err, &bad) || err.Error() != "c:"+want {
			t.Errorf("%.20q: %.200v, not %s", text, err, want)
		}
	}
}
