package config

import (
	"strings"
	"testing"
)

// TestWithoutStore: share where nothing is said, and a warning where it has no effect.
func TestWithoutStore(t *testing.T) {
	for _, test := range []struct{ keys, rule, warning string }{
		{"{}", Share, ""},
		{`{store: "redis://h/0"}`, Share, ""},
		{`{store: "redis://h/0", without_store: share}`, Share, ""},
		{`{store: "rediss://h/0", without_store: strict}`, Strict, ""},
		{"{store: keys.db, without_store: share}", Share, "config.yaml:5:24: keys.without_store: has no effect with a file"},
		{"{without_store: strict}", Strict, "config.yaml:5:8: keys.without_store: has no effect with a file"},
	} {
		cfg := mustParse(t, minimal+"keys: "+test.keys+"\n")
		warning := strings.Join(cfg.Warnings(), "\n")
		if cfg.Keys.WithoutStore != test.rule || !strings.HasPrefix(warning, test.warning) || test.warning == "" && warning != "" {
			t.Errorf("%s: %s, %s", test.keys, cfg.Keys.WithoutStore, warning)
		}
	}
}
