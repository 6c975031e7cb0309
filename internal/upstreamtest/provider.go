// Package upstreamtest is an OpenAI-like provider for tests, benchmarks and the demo model,
// and a raw one whose every byte a test decides.
package upstreamtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Provider answers like a provider of models. Set its fields before it serves.
type Provider struct {
	Delay       time.Duration // before the first byte of an answer
	Chunks      int           // events with text in a stream
	ChunkDelay  time.Duration // before each
	FailureRate float64       // of requests answered with 500, 0 to 1

	requests atomic.Int64
}

// Requests is how many requests have come.
func (p *Provider) Requests() int64 { return p.requests.Load() }

// Serve serves ln until ctx ends.
func (p *Provider) Serve(ctx context.Context, ln net.Listener) error {
	server := &fasthttp.Server{
		Handler: p.handle, MaxRequestBodySize: 1 << 30, ReadBufferSize: 64 << 10, NoDefaultServerHeader: true,
		Logger: quiet{}, CloseOnShutdown: true,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = server.ShutdownWithContext(end) // a stream that is still open is cut
	return nil
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// Main is the command "sluice mock": it serves until ctx ends.
func Main(ctx context.Context, args []string, stderr io.Writer) error {
	p := &Provider{}
	flags := flag.NewFlagSet("sluice mock", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error is printed once, by the caller
	listen := flags.String("listen", "127.0.0.1:8081", "address to serve")
	flags.DurationVar(&p.Delay, "delay", 0, "wait before the first byte of an answer")
	flags.IntVar(&p.Chunks, "chunks", 20, "events with text in a stream")
	flags.DurationVar(&p.ChunkDelay, "chunk-delay", 50*time.Millisecond, "wait before each of them")
	flags.Float64Var(&p.FailureRate, "failure-rate", 0, "part of the requests answered with 500, from 0 to 1")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return nil
	case err != nil:
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("sluice mock takes no arguments, but got %q", flags.Arg(0))
	}
	if p.Chunks < 1 || p.FailureRate < 0 || p.FailureRate > 1 {
		return errors.New("-chunks must be at least 1, -failure-rate from 0 to 1")
	}
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("cannot listen (-listen): %w", err)
	}
	fmt.Fprintf(stderr, "mock provider listens on %s\n", ln.Addr())
	return p.Serve(ctx, ln)
}

type request struct {
	Model    string `json:"model"`
	ModelID  string `json:"model_id"`
	Stream   bool   `json:"stream"`
	Messages []struct {
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
}

func (p *Provider) handle(ctx *fasthttp.RequestCtx) {
	p.requests.Add(1)
	var r request
	if err := json.Unmarshal(ctx.PostBody(), &r); err != nil {
		fail(ctx, 400, "the body is not JSON: "+err.Error())
		return
	}
	if r.Model == "" {
		r.Model = r.ModelID
	}
	if p.FailureRate > 0 && rand.Float64() < p.FailureRate {
		fail(ctx, 500, "the provider has failed, as it was told to")
		return
	}
	wait(p.Delay)
	path := string(ctx.Path())
	switch {
	case strings.HasSuffix(path, "/embeddings"):
		p.plain(ctx, map[string]any{"object": "list", "model": r.Model, "usage": usage(8, 0),
			"data": []any{map[string]any{"object": "embedding", "index": 0, "embedding": []float64{0.1, 0.2, 0.3}}}})
	case strings.HasSuffix(path, "/messages") && r.Stream:
		p.stream(ctx, &r, anthropicEvents)
	case strings.HasSuffix(path, "/messages"):
		p.plain(ctx, map[string]any{"id": "msg_demo", "type": "message", "role": "assistant", "model": r.Model, "stop_reason": "end_turn",
			"content": []any{map[string]string{"type": "text", "text": p.text()}}, "usage": map[string]int{"input_tokens": 8, "output_tokens": p.words()}})
	case r.Stream:
		p.stream(ctx, &r, chatEvents)
	default:
		p.plain(ctx, map[string]any{"id": "chatcmpl-demo", "object": "chat.completion", "created": time.Now().Unix(), "model": r.Model,
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop",
				"message": map[string]string{"role": "assistant", "content": p.text()}}},
			"usage": usage(8, p.words())})
	}
}

func wait(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

func usage(in, out int) map[string]int {
	return map[string]int{"prompt_tokens": in, "completion_tokens": out, "total_tokens": in + out}
}

func (p *Provider) words() int { return max(p.Chunks, 1) }

var words = strings.Fields("A sluice is a gate that lets through just as much water as the wheel below can use, and no more than that. ")

func word(i int) string {
	w := words[i%len(words)]
	if i > 0 {
		return " " + w
	}
	return w
}

func (p *Provider) text() string {
	var b strings.Builder
	for i := range p.words() {
		b.WriteString(word(i))
	}
	return b.String()
}

func (p *Provider) plain(ctx *fasthttp.RequestCtx, v any) {
	ctx.SetContentType("application/json")
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	ctx.SetBody(body)
}

func fail(ctx *fasthttp.RequestCtx, status int, message string) {
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json")
	body, _ := json.Marshal(map[string]any{"error": map[string]any{"message": message, "type": "server_error", "param": nil, "code": nil}})
	ctx.SetBody(body)
}

// stream sends the events that events gives for each step, from before the first chunk (-1)
// to after the last.
func (p *Provider) stream(ctx *fasthttp.RequestCtx, r *request, events func(step, chunks int, model string) string) {
	ctx.SetContentType("text/event-stream")
	model, chunks := r.Model, p.words()
	ctx.SetBodyStreamWriter(func(w *bufio.Writer) {
		for step := -1; step <= chunks; step++ {
			if step >= 0 && step < chunks {
				wait(p.ChunkDelay)
			}
			if _, err := w.WriteString(events(step, chunks, model)); err != nil || w.Flush() != nil {
				return
			}
		}
	})
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func chatEvents(step, chunks int, model string) string {
	chunk := func(delta, finish string) string {
		return fmt.Sprintf(`data: {"id":"chatcmpl-demo","object":"chat.completion.chunk","created":%d,"model":%s,"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}`+"\n\n",
			time.Now().Unix(), quote(model), delta, finish)
	}
	switch step {
	case -1:
		return chunk(`{"role":"assistant","content":""}`, "null")
	case chunks:
		return chunk(`{}`, `"stop"`) + "data: [DONE]\n\n"
	}
	return chunk(`{"content":`+quote(word(step))+`}`, "null")
}

func anthropicEvents(step, chunks int, model string) string {
	event := func(typ, rest string) string {
		return "event: " + typ + "\ndata: {\"type\":\"" + typ + "\"" + rest + "}\n\n"
	}
	switch step {
	case -1:
		return event("message_start", `,"message":{"id":"msg_demo","type":"message","role":"assistant","model":`+quote(model)+
			`,"content":[],"stop_reason":null,"usage":{"input_tokens":8,"output_tokens":0}}`) +
			event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`)
	case chunks:
		return event("content_block_stop", `,"index":0`) +
			event("message_delta", fmt.Sprintf(`,"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":%d}`, chunks)) +
			event("message_stop", "")
	}
	return event("content_block_delta", `,"index":0,"delta":{"type":"text_delta","text":`+quote(word(step))+`}`)
}
