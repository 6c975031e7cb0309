package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCredentialThatIsNotSet: an api_key that is given and empty is told from none that is wanted, and said.
func TestCredentialThatIsNotSet(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "empty"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		upstream, variable string
		unset              bool
	}{
		{`api_key: "${NOWHERE:-}"`, "NOWHERE", true},
		{`api_key: "${EMPTY}"`, "EMPTY", true},
		{`api_key: "${EMPTY:-}${NOWHERE:-}"`, "EMPTY", true},
		{`api_key: "${file:empty}"`, "", true},
		{`auth_header: x-api-key, headers: {x-team: a}, api_key: "${NOWHERE:-}"`, "NOWHERE", true},
		{`api_key: "${TOKEN:-}"`, "", false},
		{`api_key: "${NOWHERE:-a-default}"`, "", false},
		{`api_key: "Key${NOWHERE:-}"`, "", false},
		{`api_key: ""`, "", false},
		{`api_key:`, "", false},
		{`max_in_flight: 1`, "", false},
		{`headers: {authorization: Basic x}, api_key: "${NOWHERE:-}"`, "", false},
		{`auth_header: x-api-key, headers: {X_Api_Key: x}, api_key: "${NOWHERE:-}"`, "", false},
	} {
		text := strings.Replace(minimal, `1/v1"`, `1/v1", `+test.upstream, 1)
		cfg, _, err := parse(t.Context(), filepath.Join(dir, "config.yaml"), []byte(text), getenv)
		if err != nil {
			t.Errorf("%s: %v", test.upstream, err)
			continue
		}
		variable, unset := cfg.Upstreams["up"].Unset()
		if variable != test.variable || unset != test.unset {
			t.Errorf("%s: %q, %t", test.upstream, variable, unset)
		}
		said := strings.Join(cfg.Warnings(), "\n")
		if want := "upstreams.up.api_key: "; strings.Contains(said, want) != unset || !strings.Contains(said, test.variable) {
			t.Errorf("%s: %q", test.upstream, said)
		}
	}
	merged := mustParse(t, `
admin: {token: "${TOKEN}"}
upstreams:
  a: &base {base_url: "http://a/v1", api_key: "${NOWHERE:-}"}
  b: {<<: *base, base_url: "http://b/v1"}
  c: {<<: *base, api_key: given}
models: {m: {targets: [{upstream: b}]}}
`)
	for name, want := range map[string]bool{"a": true, "b": true, "c": false} {
		if _, unset := merged.Upstreams[name].Unset(); unset != want {
			t.Errorf("%s: %t", name, unset)
		}
	}
}
