package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

// fieldNames gives every key that a file may have.
func fieldNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		names(reflect.TypeFor[Config](), yield)
	}
}

func names(t reflect.Type, yield func(string) bool) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return names(t.Elem(), yield)
	case reflect.Struct:
		if t == urlType || t == proxyType {
			return true
		}
		for f := range fieldsIn(t) {
			if !f.IsExported() {
				continue
			}
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && !yield(name) {
				return false
			}
			if !names(f.Type, yield) {
				return false
			}
		}
	}
	return true
}

func fieldsIn(t reflect.Type) iter.Seq[reflect.StructField] {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	cfg := mustParse(t, `
admin: {token: sesame-sesame-sesame}
upstreams:
  up:
    base_url: http://sesame-user:sesame-password@host/v1
    api_key: sesame-key
    headers: {x-a: sesame-header}
    query: {q: sesame-query}
models: {m: {targets: [{upstream: up}]}}
`)
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(cfg); err != nil {
		t.Fatal(err)
	}
	up := cfg.Upstreams["up"]
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "config", cfg, "token", cfg.Admin.Token, "url", up.BaseURL, "map", up.Headers)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "config", cfg, "token", cfg.Admin.Token, "url", up.BaseURL, "map", up.Headers)
	fmt.Fprintf(&out, "%v %s %q %#v %+v %v %s", cfg.Admin.Token, cfg.Admin.Token, cfg.Admin.Token, cfg.Admin.Token, cfg.Admin, up.BaseURL, up.BaseURL)
	if strings.Contains(out.String(), "sesame") {
		t.Errorf("a secret is shown:\n%s", out.String())
	}
	for _, want := range []string{"x-a", `"q"`, "host/v1", redacted} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not shown", want)
		}
	}
}
