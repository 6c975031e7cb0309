package pool

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/config"
	"sluice/metrics"
)

func load(t testing.TB, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("admin: {token: 0123456789abcdef}\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// empty is a Pool without upstreams, at whose clock it is always zero.
func empty() *Pool {
	return New(metrics.New(), slog.New(slog.DiscardHandler), func() time.Duration { return 0 }, nil)
}

func TestUpstreamsLiveOnWhileTheirAddressDoes(t *testing.T) {
	const text = `
upstreams: {a: {base_url: "http://a/v1"}, b: {base_url: "https://b/v1"}}
models: {m: {targets: [{upstream: a}]}}
`
	p := empty()
	build := func(text string) map[string]*Upstream {
		s := p.Build(load(t, text))
		p.Adopt(s)
		byName := map[string]*Upstream{}
		for _, u := range s.Upstreams {
			byName[u.Name] = u
		}
		return byName
	}
	first := build(text)
	second := build(`
upstreams: {a: {base_url: "http://a:80/v2", api_key: x}, b: {base_url: "https://b:444/v1"}, c: {base_url: "http://c/"}}
models: {m: {targets: [{upstream: c}]}}
`)
	if first["a"] != second["a"] || first["a"].retired.Load() {
		t.Error("the same address, another upstream")
	}
	if first["b"] == second["b"] || !first["b"].retired.Load() || second["b"].retired.Load() {
		t.Error("another address, the same upstream")
	}
	p.Close()
	if !second["c"].retired.Load() {
		t.Error("Close retires nothing")
	}
}

func TestQuoteIsJSON(t *testing.T) {
	for _, s := range []string{"gpt-4o", `a"b\c`, "q\"\U000e0001", "é<&>", "\x7f", "\xff"} {
		var back string
		if err := json.Unmarshal(quote(s), &back); err != nil || back != s && s != "\xff" {
			t.Errorf("%q became %s: %v", s, quote(s), err)
		}
	}
}

func TestCausesHaveNames(t *testing.T) {
	for c := range causes {
		if c.String() == "" {
			t.Errorf("cause %d has no name", c)
		}
	}
}
