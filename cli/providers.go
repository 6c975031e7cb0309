package cli

import (
	"fmt"
	"os"
	"strings"
)

// provider is one whose key init looks for.
type provider struct {
	name      string
	variables []string // of the environment, that may hold its key
	baseURL   string
	more      []string // further lines of the upstream
	models    []servedModel
	messages  bool // it speaks Anthropic's Messages API, not OpenAI's
}

// servedModel is a model's name at the gateway, and at the provider where that differs.
type servedModel struct{ name, there string }

// providers are those whose APIs the gateway's clients speak.
var providers = []provider{
	{name: "openai", variables: []string{"OPENAI_API_KEY"}, baseURL: "https://api.openai.com/v1",
		models: []servedModel{{"gpt-5", ""}, {"gpt-5-mini", ""}}},
	{name: "anthropic", variables: []string{"ANTHROPIC_API_KEY"}, baseURL: "https://api.anthropic.com/v1", messages: true,
		more:   []string{"auth_header: x-api-key", `headers: {anthropic-version: "2023-06-01"}`},
		models: []servedModel{{"claude-sonnet-4-5", ""}, {"claude-haiku-4-5", ""}}},
	{name: "gemini", variables: []string{"GEMINI_API_KEY", "GOOGLE_API_KEY"}, baseURL: "https://generativelanguage.googleapis.com/v1beta/openai",
		models: []servedModel{{"gemini-2.5-pro", ""}, {"gemini-2.5-flash", ""}}},
	{name: "mistral", variables: []string{"MISTRAL_API_KEY"}, baseURL: "https://api.mistral.ai/v1",
		models: []servedModel{{"mistral-large-latest", ""}, {"mistral-small-latest", ""}}},
	{name: "groq", variables: []string{"GROQ_API_KEY"}, baseURL: "https://api.groq.com/openai/v1",
		models: []servedModel{{"gpt-oss-120b", "openai/gpt-oss-120b"}, {"llama-3.3-70b-versatile", ""}}},
	{name: "openrouter", variables: []string{"OPENROUTER_API_KEY"}, baseURL: "https://openrouter.ai/api/v1",
		models: []servedModel{{"openrouter-auto", "openrouter/auto"}}},
	{name: "deepseek", variables: []string{"DEEPSEEK_API_KEY"}, baseURL: "https://api.deepseek.com/v1",
		models: []servedModel{{"deepseek-chat", ""}, {"deepseek-reasoner", ""}}},
	{name: "together", variables: []string{"TOGETHER_API_KEY"}, baseURL: "https://api.together.xyz/v1",
		models: []servedModel{{"llama-3.3-70b-instruct", "meta-llama/Llama-3.3-70B-Instruct-Turbo"}}},
	{name: "xai", variables: []string{"XAI_API_KEY"}, baseURL: "https://api.x.ai/v1",
		models: []servedModel{{"grok-4", ""}}},
}

// demoProvider is the built-in one: sluice demo runs it, and sluice mock.
var demoProvider = provider{name: "demo", baseURL: "${DEMO_BASE_URL:-http://127.0.0.1:8081/v1}", models: []servedModel{{"demo", "demo-model"}}}

// found are the providers whose keys are in the environment. The first of a provider's variables is
// the one that has it.
func found() (with []provider) {
	for _, p := range providers {
		for _, variable := range p.variables {
			if os.Getenv(variable) != "" {
				p.variables = []string{variable}
				with = append(with, p)
				break
			}
		}
	}
	return with
}

// variableNames are those that init looks for.
func variableNames() string {
	var names []string
	for _, p := range providers {
		names = append(names, p.variables...)
	}
	return strings.Join(names, ", ")
}

// startConfig is a short configuration that serves the models of providers. token is a ${…}.
func startConfig(token, store string, with []provider) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# A start, for this machine alone. docs/config.md explains each key, and config.reference.yaml
# shows all of them. Check changes with: sluice check FILE
listen: 127.0.0.1:8080
admin:
  listen: 127.0.0.1:9090
  token: %s
keys:
  store: %s

upstreams:
`, token, store)
	for _, p := range with {
		fmt.Fprintf(&b, "  %s:\n    base_url: %s\n", p.name, p.baseURL)
		if len(p.variables) > 0 {
			fmt.Fprintf(&b, "    api_key: ${%s:-}\n", p.variables[0])
		}
		for _, line := range p.more {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	b.WriteString("\nmodels:\n")
	for _, p := range with {
		for _, m := range p.models {
			there := ""
			if m.there != "" {
				there = ", model: " + m.there
			}
			fmt.Fprintf(&b, "  %s: {targets: [{upstream: %s%s}]}\n", m.name, p.name, there)
		}
	}
	return b.String()
}

// DemoConfig is the configuration of a demo: the model demo, and those of the providers whose keys are
// in the environment.
func DemoConfig() string {
	return startConfig("${SLUICE_ADMIN_TOKEN}", "keys.db", append([]provider{demoProvider}, found()...))
}
