// Package sdk drives the built program with the providers' own SDKs. It is a package of its own, since
// compiling these takes minutes.
package sdk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

const adminToken = "0123456789abcdef"

// start runs the program until the test ends, and returns what pattern finds in its stderr.
func start(t *testing.T, pattern string, program string, args ...string) []string {
	t.Helper()
	cmd := exec.Command(program, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if found := regexp.MustCompile(pattern).FindStringSubmatch(lines.Text()); found != nil {
			return found[1:]
		}
	}
	t.Fatalf("%s %q ended", program, args)
	return nil
}

// cutter serves what provider serves, but closes the connection after a stream's first events.
func cutter(t *testing.T, provider string) string {
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL, r.RequestURI = &url.URL{Scheme: "http", Host: provider, Path: r.URL.Path}, ""
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		lines := bufio.NewScanner(resp.Body)
		for events := 0; events < 5 && lines.Scan(); {
			fmt.Fprintln(w, lines.Text())
			if lines.Text() == "" {
				events++
			}
		}
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(cut.Close)
	return cut.URL
}

// gateway starts sluice with its demo provider, which answers in five words, and returns its URL and a key.
// The model half is the same provider's, whose streams are cut.
func gateway(t *testing.T) (base, key string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "sluice")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	provider := start(t, `listens on (\S+)`, program, "mock", "-listen", "127.0.0.1:0", "-chunks", "5", "-chunk-delay", "1ms")[0]
	config := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf(`
listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0, token: %s}
keys: {store: %s}
upstreams: {demo: {base_url: "http://%s/v1"}, half: {base_url: "%s/v1"}}
models: {demo: {targets: [{upstream: demo, model: demo-model}]}, half: {targets: [{upstream: half}]}}
`, adminToken, filepath.Join(dir, "keys.db"), provider, cutter(t, provider))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := start(t, `"sluice serves","listen":"([^"]+)","admin":"([^"]+)"`, program, "-config", config)
	req, _ := http.NewRequest("POST", "http://"+at[1]+"/api/keys", strings.NewReader(`{"name":"e2e"}`))
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var made struct{ Key string }
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || made.Key == "" {
		t.Fatal(resp.Status, err)
	}
	return "http://" + at[0], made.Key
}

const (
	answer = "A sluice is a gate"
	member = `{"model":"demo","upstream":"demo","attempts":1}` // gateway
)

// want fails the test if what an SDK read, printed, is not what is wanted.
func want(t *testing.T, err error, want string, got ...any) {
	t.Helper()
	text := strings.TrimSpace(fmt.Sprintln(got...))
	if err != nil || text != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, text, want)
	}
}

func TestSDKs(t *testing.T) {
	base, key := gateway(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ai := openai.NewClient(option.WithBaseURL(base+"/v1"), option.WithAPIKey(key))
	claude := anthropic.NewClient(anthropicoption.WithBaseURL(base), anthropicoption.WithAPIKey(key))

	chat := openai.ChatCompletionNewParams{Model: "demo", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hello")}}
	t.Run("chat", func(t *testing.T) {
		a, err := ai.Chat.Completions.New(ctx, chat)
		want(t, err, answer+" stop 5 "+member, a.Choices[0].Message.Content, a.Choices[0].FinishReason, a.Usage.CompletionTokens, a.JSON.ExtraFields["gateway"].Raw())
	})
	t.Run("chat, streamed", func(t *testing.T) {
		params := chat
		params.StreamOptions.IncludeUsage = openai.Bool(true)
		stream := ai.Chat.Completions.NewStreaming(ctx, params)
		var sum openai.ChatCompletionAccumulator
		for stream.Next() {
			if !sum.AddChunk(stream.Current()) {
				t.Errorf("a chunk that does not fit: %s", stream.Current().RawJSON())
			}
		}
		want(t, stream.Err(), answer+" stop 5", sum.Choices[0].Message.Content, sum.Choices[0].FinishReason, sum.Usage.CompletionTokens)
	})

	response := responses.ResponseNewParams{Model: "demo", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Hello")}}
	t.Run("responses", func(t *testing.T) {
		a, err := ai.Responses.New(ctx, response)
		want(t, err, answer+" completed 5 "+member, a.OutputText(), a.Status, a.Usage.OutputTokens, a.JSON.ExtraFields["gateway"].Raw())
	})
	t.Run("responses, streamed", func(t *testing.T) {
		stream := ai.Responses.NewStreaming(ctx, response)
		var text bytes.Buffer
		var last responses.ResponseStreamEventUnion
		for n := int64(0); stream.Next(); n++ {
			last = stream.Current()
			if last.SequenceNumber != n {
				t.Errorf("event %d is number %d", n, last.SequenceNumber)
			}
			if last.Type == "response.output_text.delta" {
				text.WriteString(last.Delta)
			}
		}
		want(t, stream.Err(), strings.Join([]string{answer, "response.completed", answer, "5"}, " "),
			text.String(), last.Type, last.Response.OutputText(), last.Response.Usage.OutputTokens)
	})

	message := anthropic.MessageNewParams{Model: "demo", MaxTokens: 100, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("Hello"))}}
	t.Run("messages", func(t *testing.T) {
		a, err := claude.Messages.New(ctx, message)
		want(t, err, answer+" end_turn 5 "+member, a.Content[0].Text, a.StopReason, a.Usage.OutputTokens, a.JSON.ExtraFields["gateway"].Raw())
	})
	t.Run("messages, streamed", func(t *testing.T) {
		stream := claude.Messages.NewStreaming(ctx, message)
		var sum anthropic.Message
		for stream.Next() {
			if err := sum.Accumulate(stream.Current()); err != nil {
				t.Error(err)
			}
		}
		want(t, stream.Err(), answer+" end_turn 5", sum.Content[0].Text, sum.StopReason, sum.Usage.OutputTokens)
	})

	t.Run("cut streams", func(t *testing.T) {
		half := func(name string, stream interface {
			Next() bool
			Err() error
		}) {
			events := 0
			for stream.Next() {
				events++
			}
			if err := stream.Err(); events == 0 || err == nil || !strings.Contains(err.Error(), "upstream half failed: its stream broke off") {
				t.Errorf("%s: %d events, then %v", name, events, err)
			}
		}
		chat, response, message := chat, response, message
		chat.Model, response.Model, message.Model = "half", "half", "half"
		half("chat", ai.Chat.Completions.NewStreaming(ctx, chat))
		half("responses", ai.Responses.NewStreaming(ctx, response))
		half("messages", claude.Messages.NewStreaming(ctx, message))
	})

	t.Run("the rest", func(t *testing.T) {
		e, err := ai.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "demo", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("Hello")}})
		want(t, err, "[0.1 0.2 0.3]", e.Data[0].Embedding)
		c, err := claude.Messages.CountTokens(ctx, anthropic.MessageCountTokensParams{Model: "demo", Messages: message.Messages})
		want(t, err, "true", c.InputTokens > 0)
		m, err := ai.Models.List(ctx)
		want(t, err, "demo", m.Data[0].ID)
	})
	t.Run("errors", func(t *testing.T) {
		_, err := ai.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "none"})
		if e, ok := err.(*openai.Error); !ok || e.StatusCode != 404 || e.Code != "model_not_found" {
			t.Error(err)
		}
		_, err = claude.Messages.New(ctx, anthropic.MessageNewParams{Model: "none", MaxTokens: 1})
		if e, ok := err.(*anthropic.Error); !ok || e.StatusCode != 404 || e.Type() != "not_found_error" {
			t.Error(err)
		}
	})
}
