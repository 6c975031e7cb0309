package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var testEnv = map[string]string{
	"TOKEN": "0123456789abcdef", "SHORT": "sesame-open", "EMPTY": "", "N": "7", "NOT_A_NUMBER": "sesame-open",
	"LINES": "sesame\nopen", "NOT_UTF8": "sesame\xff",
}

func getenv(name string) (string, bool) {
	v, ok := testEnv[name]
	return v, ok
}

const minimal = `
admin: {token: "${TOKEN}"}
upstreams: {up: {base_url: "http://127.0.0.1:1/v1"}}
models: {m: {targets: [{upstream: up}]}}
`

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, _, err := parse(t.Context(), "config.yaml", []byte(text), getenv)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestBadFiles reads every file of testdata/bad and compares what its operator would
// read with the .want file beside it. UPDATE=1 writes those.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = parse(t.Context(), file, b, getenv)
			var bad *Error
			if !errors.As(err, &bad) {
				t.Fatalf("not refused with findings: %v", err)
			}
			got := strings.ReplaceAll(err.Error(), filepath.ToSlash(file), "config.yaml") + "\n"
			if strings.Contains(got, "sesame") {
				t.Errorf("an expanded value is shown:\n%s", got)
			}
			want := strings.TrimSuffix(file, ".yaml") + ".want"
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(text), got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestDefaultsStayWhereTheFileIsSilent(t *testing.T) {
	cfg := mustParse(t, minimal)
	if cfg.Listen != ":8080" || cfg.Limits.Body != 32<<20 || cfg.Timeouts.Client.Idle != Duration(90*time.Second) {
		t.Errorf("defaults are gone: %+v", cfg)
	}
	if u := cfg.Upstreams["up"]; u.AuthHeader != "Authorization" {
		t.Errorf("auth_header is %q", u.AuthHeader)
	}
	if target := cfg.Models["m"].Targets[0]; target.Weight != 1 {
		t.Errorf("weight is %d", target.Weight)
	}
}

func TestExpansion(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(`
admin: {token: "${TOKEN}"}
listen: ":${N}"
limits: {in_flight: "${N}", body: "${SIZE:-2MiB}"}
access_log: ${ON:-true}
timeouts: {connect: "${N}s"}
upstreams:
  up:
    base_url: http://${HOST:-example.test}/v1
    api_key: ${file:SECRET}
    headers: {x-a: "a ${N} b ${EMPTY:-c} d", x-b: "$N {N} $"}
  rel: {base_url: "http://h/", api_key: "${file:secret}"}
models: {m: {targets: [{upstream: up}]}}
`, "SECRET", secret)
	cfg, _, err := parse(t.Context(), filepath.Join(dir, "config.yaml"), []byte(text), getenv)
	if err != nil {
		t.Fatal(err)
	}
	up := cfg.Upstreams["up"]
	got := []any{cfg.Listen, cfg.Limits.InFlight, cfg.Limits.Body, cfg.AccessLog, cfg.Timeouts.Connect, up.BaseURL.Host,
		up.APIKey.Reveal(), up.Headers["x-a"].Reveal(), up.Headers["x-b"].Reveal(), cfg.Upstreams["rel"].APIKey.Reveal()}
	want := []any{":7", 7, Size(2 << 20), Sampling(1), Duration(7 * time.Second), "example.test",
		"from-a-file", "a 7 b c d", "$N {N} $", "from-a-file"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestExpandedValuesAreNotExpandedAgain(t *testing.T) {
	testEnv["TRICK"] = "${TOKEN}"
	defer delete(testEnv, "TRICK")
	cfg := mustParse(t, minimal+"keys: {store: \"${TRICK}\"}\n")
	if cfg.Keys.Store != "${TOKEN}" {
		t.Errorf("store is %q", cfg.Keys.Store)
	}
}

func TestByteOrderMark(t *testing.T) {
	mustParse(t, "\xEF\xBB\xBF"+strings.TrimSpace(minimal))
}

func TestDigestTellsFilesApart(t *testing.T) {
	dir := t.TempDir()
	digest := func(a, b string) Digest {
		t.Helper()
		for name, text := range map[string]string{"a": a, "b": b} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, d, err := parse(t.Context(), filepath.Join(dir, "config.yaml"), []byte(minimal+`keys: {store: "${file:a}${file:b}"}`), getenv)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if digest("xy", "z") == digest("x", "yz") {
		t.Error("other files, same digest")
	}
}

func TestAnchorsAndMerges(t *testing.T) {
	cfg := mustParse(t, `
admin: {token: "${TOKEN}"}
upstreams:
  a: &base
    base_url: http://a/v1
    timeouts: &slow {connect: 9s}
    auth_header: api-key
  b:
    <<: *base
    base_url: http://b/v1
models:
  m: {timeouts: *slow, targets: [{upstream: b}]}
`)
	b := cfg.Upstreams["b"]
	if b.BaseURL.Host != "b" || b.AuthHeader != "api-key" || b.Timeouts.Connect != Duration(9*time.Second) {
		t.Errorf("b is %+v", b)
	}
	if cfg.Models["m"].Timeouts.Connect != Duration(9*time.Second) {
		t.Errorf("m is %+v", cfg.Models["m"])
	}
}

func TestNearestTimeoutWins(t *testing.T) {
	cfg := mustParse(t, `
admin: {token: "${TOKEN}"}
timeouts: {total: 5m, connect: 1s, first_byte: 11s}
upstreams: {up: {base_url: "http://a/v1", timeouts: {connect: 2s, first_byte: 12s}}}
models: {m: {timeouts: {connect: 3s}, targets: [{upstream: up}]}}
`)
	got := cfg.TimeoutsFor(cfg.Models["m"], cfg.Upstreams["up"])
	want := Timeouts{Connect: Duration(3 * time.Second), FirstByte: Duration(12 * time.Second), Response: Duration(5 * time.Minute),
		Total: Duration(5 * time.Minute), StreamIdle: Duration(time.Minute), StreamKeepalive: Duration(15 * time.Second)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestBodyFitsIntoMemory(t *testing.T) {
	for limits, want := range map[string]Size{"memory: 20MiB": 20 << 20, "memory: 1GiB": 32 << 20, "memory: 20MiB, body: 8MiB": 8 << 20} {
		if got := mustParse(t, minimal+"\nlimits: {"+limits+"}\n").Limits.Body; got != want {
			t.Errorf("%s: bodies may have %d bytes, not %d", limits, got, want)
		}
	}
}

func TestNearestConnectionsWin(t *testing.T) {
	cfg := mustParse(t, `
admin: {token: "${TOKEN}"}
connections: {max_age: 2m}
upstreams: {a: {base_url: "http://a/v1", connections: {max_age: 30s}}, b: {base_url: "http://b/v1"}}
models: {m: {targets: [{upstream: a}]}}
`)
	for name, want := range map[string]time.Duration{"a": 30 * time.Second, "b": 2 * time.Minute} {
		if got := cfg.ConnectionsFor(cfg.Upstreams[name]).MaxAge.Std(); got != want {
			t.Errorf("connections to %s may be %v old, not %v", name, got, want)
		}
	}
	if got := mustParse(t, minimal).Connections.MaxAge.Std(); got != 5*time.Minute {
		t.Errorf("the default is %v", got)
	}
}

// shipped is an example that we ship, where no provider's key is set.
func shipped(t *testing.T, name string) (text string, cfg *Config) {
	t.Helper()
	b, err := os.ReadFile("../" + name)
	if err != nil {
		t.Fatal(err)
	}
	cfg, _, err = parse(t.Context(), name, b, func(name string) (string, bool) {
		v, ok := map[string]string{"SLUICE_ADMIN_TOKEN": "0123456789abcdef"}[name]
		return v, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Models["demo"] == nil {
		t.Errorf("%s has no model demo", name)
	}
	return string(b), cfg
}

// TestShortConfig: the example to begin with is short. It says what its providers lack.
func TestShortConfig(t *testing.T) {
	text, cfg := shipped(t, "config.yaml")
	if lines := strings.Count(text, "\n"); lines > 30 {
		t.Errorf("it has %d lines", lines)
	}
	if warnings := strings.Join(cfg.Warnings(), "\n"); len(cfg.Warnings()) != 2 || !strings.Contains(warnings, "OPENAI_API_KEY is empty or not set") ||
		!strings.Contains(warnings, "ANTHROPIC_API_KEY is empty or not set") {
		t.Errorf("warnings: %s", warnings)
	}
}

// TestReferenceConfig: the example with every key is a working file and says of each key what its
// default is.
func TestReferenceConfig(t *testing.T) {
	text, cfg := shipped(t, "config.reference.yaml")
	def := Default()
	def.Admin.Token = cfg.Admin.Token
	def.Upstreams, def.Models, def.Paths = cfg.Upstreams, cfg.Models, cfg.Paths
	def.Timeouts.Response = cfg.Timeouts.Response
	if diff := cmp.Diff(def, cfg, cmpopts.IgnoreUnexported(Config{}, Upstream{})); diff != "" {
		t.Errorf("values that are not the defaults: -default +file\n%s", diff)
	}
	for name := range fieldNames() {
		if !strings.Contains(text, name+":") {
			t.Errorf("the key %s is not in config.reference.yaml", name)
		}
	}
}

// TestEveryKeyIsDocumented holds docs/config.md against the fields.
func TestEveryKeyIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range fieldNames() {
		if !strings.Contains(string(b), "`"+name+"`") && !strings.Contains(string(b), "."+name+"`") && !strings.Contains(string(b), "`"+name+".") {
			t.Errorf("the key %s is not in docs/config.md", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(minimal)
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("a: &a [*a, *a]\nupstreams: *a")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return // the parser's own time is not ours to test
		}
		cfg, _, err := parse(t.Context(), "config.yaml", []byte(text), getenv)
		var bad *Error
		switch {
		case err == nil && (len(cfg.Models) == 0 || len(cfg.Upstreams) == 0):
			t.Fatal("accepted without models or upstreams")
		case err != nil && (!errors.As(err, &bad) || len(bad.Findings) == 0):
			t.Fatalf("refused without a finding: %v", err)
		}
		if err == nil {
			for _, m := range cfg.Models {
				for _, target := range m.Targets {
					if cfg.Upstreams[target.Upstream] == nil {
						t.Fatal("a dangling upstream was accepted")
					}
				}
			}
		}
	})
}
