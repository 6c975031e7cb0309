package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/config"
)

// folder has the test run in a folder of its own, with nothing of ours in the environment.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for _, variable := range append(regexp.MustCompile(`\w+`).FindAllString(variableNames(), -1), "SLUICE_ADMIN", "SLUICE_ADMIN_TOKEN", "DEMO_BASE_URL") {
		t.Setenv(variable, "")
	}
	return dir
}

// sluice runs a command, and returns what it prints.
func sluice(args ...string) (string, error) {
	var out bytes.Buffer
	p := &Program{Stdout: &out, Stderr: &out}
	err := p.Run(context.Background(), args)
	return out.String(), err
}

func TestInit(t *testing.T) {
	const none = "No provider's key is in the environment"
	for _, test := range []struct {
		name   string
		env    map[string]string
		models []string // served, in the file's order
		says   []string
	}{
		{"nothing", nil, []string{"demo"}, []string{none, "OPENAI_API_KEY", "  sluice mock &\n", `"model":"demo"`, "token is in data/admin.token"}},
		{"empty keys", map[string]string{"OPENAI_API_KEY": ""}, []string{"demo"}, []string{none}},
		{"one", map[string]string{"OPENAI_API_KEY": "k"}, []string{"gpt-5", "gpt-5-mini"},
			[]string{"gpt-5, with OPENAI_API_KEY", "/v1/chat/completions", `"model":"gpt-5"`}},
		{"Anthropic's", map[string]string{"ANTHROPIC_API_KEY": "k"}, []string{"claude-sonnet-4-5", "claude-haiku-4-5"},
			[]string{`/v1/messages -H "x-api-key: $key"`, `"max_tokens":100`}},
		{"the second name", map[string]string{"GOOGLE_API_KEY": "k"}, []string{"gemini-2.5-pro", "gemini-2.5-flash"}, []string{"with GOOGLE_API_KEY"}},
		{"both names", map[string]string{"GOOGLE_API_KEY": "k", "GEMINI_API_KEY": "k"}, []string{"gemini-2.5-pro", "gemini-2.5-flash"}, []string{"with GEMINI_API_KEY"}},
		{"a token in the environment", map[string]string{"SLUICE_ADMIN_TOKEN": "0123456789abcdef", "XAI_API_KEY": "k"}, []string{"grok-4"}, nil},
		{"all", map[string]string{"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k", "MISTRAL_API_KEY": "k", "GROQ_API_KEY": "k",
			"OPENROUTER_API_KEY": "k", "DEEPSEEK_API_KEY": "k", "TOGETHER_API_KEY": "k", "XAI_API_KEY": "k"},
			[]string{"gpt-5", "gpt-5-mini", "claude-sonnet-4-5", "claude-haiku-4-5", "gemini-2.5-pro", "gemini-2.5-flash", "mistral-large-latest",
				"mistral-small-latest", "gpt-oss-120b", "llama-3.3-70b-versatile", "openrouter-auto", "deepseek-chat", "deepseek-reasoner",
				"llama-3.3-70b-instruct", "grok-4"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder(t)
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			out, err := sluice("init")
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range append(test.says, "  sluice check\n", "  sluice\n", "sluice keys create --name me") {
				if !strings.Contains(out, part) {
					t.Errorf("there is no %q in\n%s", part, out)
				}
			}
			if checked, err := sluice("check"); err != nil || checked != "config.yaml: ok\n" {
				t.Errorf("sluice check: %v %s", err, checked)
			}
			cfg, _, err := config.Load(context.Background(), "config.yaml")
			if err != nil {
				t.Fatal(err)
			}
			var models []string
			text, _ := os.ReadFile("config.yaml")
			for _, m := range regexp.MustCompile(`(?m)^  (\S+): \{targets`).FindAllStringSubmatch(string(text), -1) {
				models = append(models, m[1])
			}
			if strings.Join(models, " ") != strings.Join(test.models, " ") || len(cfg.Models) != len(models) {
				t.Errorf("models: %q", models)
			}
			if lines := strings.Count(string(text), "\n"); len(models) <= 2 && lines > 22 {
				t.Errorf("it has %d lines", lines)
			}
			if strings.Contains(string(text)+out, cfg.Admin.Token.Reveal()) || len(cfg.Admin.Token.Reveal()) < 16 {
				t.Error("a secret is in the file, or shown, or it is short")
			}
			_, err = os.Stat("data/admin.token")
			if (err == nil) != (test.env["SLUICE_ADMIN_TOKEN"] == "") {
				t.Errorf("data/admin.token: %v", err)
			}
		})
	}
}

// TestInitOverwritesNothing, unless it is told to; and then not the token.
func TestInitOverwritesNothing(t *testing.T) {
	dir := folder(t)
	if err := os.WriteFile("config.yaml", []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := sluice("init")
	if err == nil || !strings.Contains(err.Error(), "config.yaml is there already and was not changed; sluice init --force") || ExitCode(err) != 1 {
		t.Errorf("%v", err)
	}
	if text, _ := os.ReadFile("config.yaml"); string(text) != "mine" {
		t.Errorf("it is now %s", text)
	}
	if _, err := os.Stat("data"); err == nil {
		t.Error("it has made a folder")
	}
	token := func() string { text, _ := os.ReadFile("data/admin.token"); return string(text) }
	var first string
	for range 2 {
		if _, err := sluice("init", "-force"); err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = token()
		}
	}
	if token() != first {
		t.Error("the token is another one")
	}
	left, _ := filepath.Glob(".*")
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	t.Setenv("OPENAI_API_KEY", "k")
	out, err := sluice("init", filepath.Join(dir, "other.yaml"))
	if err != nil || !strings.Contains(out, "sluice check "+dir+"/other.yaml") || !strings.Contains(out, "keys create --config "+dir+"/other.yaml") {
		t.Errorf("%v %s", err, out)
	}
	if _, err := sluice("init", "no/folder/config.yaml"); err == nil {
		t.Error("it writes into a folder that is not there")
	}
}

// TestWhereTheAdminPortIs: flags go before the environment, and that before config.yaml. A token from
// elsewhere does not go where config.yaml says.
func TestWhereTheAdminPortIs(t *testing.T) {
	folder(t)
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	settings := func(listen, token string) string {
		return "admin: {listen: \"" + listen + "\", token: " + token + "}\nupstreams: {u: {base_url: \"http://u/v1\"}}\nmodels: {m: {targets: [{upstream: u}]}}\n"
	}
	write("config.yaml", settings(":9191", "of-the-default-file"))
	write("other.yaml", settings("192.0.2.1:9292", "of-one-more-file"))
	write("token", "of-a-token-file\n")
	write("empty", "\n")
	for _, test := range []struct {
		name       string
		r          remote
		env, token string // SLUICE_ADMIN, SLUICE_ADMIN_TOKEN
		want       string // base and token, or part of the error
	}{
		{"config.yaml", remote{}, "", "", "http://127.0.0.1:9191 of-the-default-file"},
		{"the token alone", remote{}, "", "of-the-environment", "http://127.0.0.1:9090 of-the-environment"},
		{"the address alone", remote{}, "http://a:1", "", "SLUICE_ADMIN_TOKEN is not set"},
		{"both", remote{}, "http://a:1/", "of-the-environment", "http://a:1 of-the-environment"},
		{"a flag's address", remote{admin: "http://b:2"}, "http://a:1", "of-the-environment", "http://b:2 of-the-environment"},
		{"a flag's address, no token", remote{admin: "http://b:2"}, "", "", "SLUICE_ADMIN_TOKEN is not set"},
		{"a flag's token", remote{tokenFile: "token"}, "http://a:1", "of-the-environment", "http://a:1 of-a-token-file"},
		{"a flag's token, no address", remote{tokenFile: "token"}, "", "", "http://127.0.0.1:9090 of-a-token-file"},
		{"a named file", remote{config: "other.yaml"}, "http://a:1", "of-the-environment", "http://192.0.2.1:9292 of-one-more-file"},
		{"a named file and flags", remote{config: "other.yaml", admin: "http://b:2", tokenFile: "token"}, "", "", "http://b:2 of-a-token-file"},
		{"no such file", remote{config: "none.yaml"}, "", "x", "cannot read config"},
		{"no token there", remote{tokenFile: "empty"}, "", "x", "empty is empty"},
		{"no URL", remote{admin: "127.0.0.1:9090"}, "", "x", "must be the admin port's URL"},
	} {
		t.Setenv("SLUICE_ADMIN", test.env)
		t.Setenv("SLUICE_ADMIN_TOKEN", test.token)
		c, err := test.r.client(context.Background())
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = c.base + " " + c.token
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
