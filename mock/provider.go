// Package mock is the provider of sluice mock, of the demo and of tests, which speaks OpenAI's and
// Anthropic's APIs.
package mock

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Provider answers like a provider of models. Set its fields before it serves.
type Provider struct {
	Delay       time.Duration // before the first byte of an answer
	Chunks      int           // words in an answer; a stream has an event for each
	ChunkDelay  time.Duration // before each of these events
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

// api is what the provider serves at paths that end in path.
type api struct {
	path   string
	answer func(*question) any
	stream func(*question, *events) // nil for an API without streams
	fail   func(status int, message string) any
}

// apis are in the order in which a path is looked up: longer ones first.
var apis = []api{
	{"/chat/completions", chatAnswer, chatStream, openAIError},
	{"/completions", textAnswer, textStream, openAIError},
	{"/embeddings", embeddingsAnswer, nil, openAIError},
	{"/responses", responsesAnswer, responsesStream, openAIError},
	{"/messages/count_tokens", countAnswer, nil, anthropicError},
	{"/messages", messagesAnswer, messagesStream, anthropicError},
	{"/models", modelsAnswer, nil, openAIError},
}

// Paths are what the paths that a Provider serves end in.
func Paths() (paths []string) {
	for _, a := range apis {
		paths = append(paths, a.path)
	}
	return paths
}

func (p *Provider) handle(ctx *fasthttp.RequestCtx) {
	q := &question{number: p.requests.Add(1), words: max(p.Chunks, 1), created: time.Now().Unix()}
	i := slices.IndexFunc(apis, func(a api) bool { return strings.HasSuffix(string(ctx.Path()), a.path) })
	if i < 0 {
		reply(ctx, 404, openAIError(404, "the mock provider serves paths that end in "+strings.Join(Paths(), " ")))
		return
	}
	a := apis[i]
	if a.path != "/models" {
		if err := json.Unmarshal(ctx.PostBody(), q); err != nil {
			reply(ctx, 400, a.fail(400, "the body is no request: "+err.Error()))
			return
		}
	}
	if p.FailureRate > 0 && rand.Float64() < p.FailureRate {
		reply(ctx, 500, a.fail(500, "the provider has failed, as it was told to"))
		return
	}
	time.Sleep(p.Delay)
	if !q.Stream || a.stream == nil {
		reply(ctx, 200, a.answer(q))
		return
	}
	ctx.SetContentType("text/event-stream")
	ctx.SetBodyStreamWriter(func(w *bufio.Writer) { a.stream(q, &events{w: w, delay: p.ChunkDelay}) })
}

func reply(ctx *fasthttp.RequestCtx, status int, v any) {
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json")
	ctx.SetBody(encode(v))
}

// events writes a stream. After an error it writes nothing more.
type events struct {
	w     *bufio.Writer
	delay time.Duration
	err   error
}

// send writes an event, of a type if that is not "".
func (e *events) send(typ string, data any) {
	if e.err != nil {
		return
	}
	if typ != "" {
		fmt.Fprintf(e.w, "event: %s\n", typ)
	}
	fmt.Fprintf(e.w, "data: %s\n\n", encode(data))
	e.err = e.w.Flush()
}

// each calls f with every word of the answer, after the delay, until the client has left.
func (e *events) each(q *question, f func(word string)) {
	for i := range q.words {
		if e.err != nil {
			return
		}
		time.Sleep(e.delay)
		f(word(i))
	}
}
