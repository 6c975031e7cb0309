package proxy

import (
	"bytes"
	"strings"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"
)

// route is a proxied path.
type route struct {
	path    string // the part after /v1, which is appended to an upstream's base_url
	dialect dialect
	// terminated: streams here end in a terminator, so that one without has broken off.
	terminated bool
	// streamOptions: a stream's usage is told to who asks for it in stream_options.
	streamOptions bool
	// texts: a stream's events have their text under "text", not in a "delta".
	texts bool
}

// builtin are the paths that every gateway has.
var builtin = []route{
	{path: "/chat/completions", terminated: true, streamOptions: true},
	{path: "/completions", terminated: true, texts: true},
	{path: "/embeddings"},
	{path: "/responses", terminated: true},
	{path: "/messages", dialect: anthropic, terminated: true},
	{path: "/messages/count_tokens", dialect: anthropic},
	{path: "/images/generations"},
	{path: "/audio/speech"},
	{path: "/moderations"},
	{path: "/rerank"},
}

// newRouter compiles the routes of s.
func newRouter(s *snapshot) *router.Router {
	rt := router.New()
	rt.RedirectTrailingSlash = false
	rt.RedirectFixedPath = false
	rt.HandleOPTIONS = false
	rt.NotFound = func(ctx *fasthttp.RequestCtx) {
		requestOf(ctx).refuse(refusal(notFound, "", "there is nothing at this path"))
	}
	rt.MethodNotAllowed = func(ctx *fasthttp.RequestCtx) {
		h := &ctx.Response.Header
		if string(ctx.Request.URI().PathOriginal()) == "/*" { // the router takes it for the whole server
			h.Del(fasthttp.HeaderAllow)
			rt.NotFound(ctx)
			return
		}
		// The router counts OPTIONS in, though it was told not to answer it.
		allow := strings.ReplaceAll(string(h.Peek(fasthttp.HeaderAllow)), "OPTIONS, ", "")
		h.Set(fasthttp.HeaderAllow, strings.TrimSuffix(allow, ", OPTIONS"))
		requestOf(ctx).refuse(refusal(methodNotAllowed, "", "this path does not take that method; the Allow header names those it takes"))
	}
	post := func(path string, to *route) {
		rt.POST(path, func(ctx *fasthttp.RequestCtx) { requestOf(ctx).proxied(to) })
	}
	known := map[string]bool{}
	for i := range builtin {
		known[builtin[i].path] = true
		post("/v1"+builtin[i].path, &builtin[i])
	}
	for _, path := range s.config.Paths {
		if !known[path] {
			known[path] = true
			post("/v1"+path, &route{path: path})
		}
	}
	post("/api/llm", &builtin[0])

	get := func(path string, answer func(*request)) {
		handler := func(ctx *fasthttp.RequestCtx) { answer(requestOf(ctx)) }
		rt.GET(path, handler)
		rt.HEAD(path, handler)
	}
	get("/v1/models", (*request).listModels)
	get("/v1/models/{id:*}", (*request).showModel)
	get("/v1/key", (*request).showKey)
	get("/healthz", (*request).healthz)
	get("/readyz", (*request).readyz)
	return rt
}

// cleanPath refuses a path that could mean another one to whoever reads it next.
func cleanPath(path []byte) bool {
	for _, c := range path {
		if c < 0x20 || c == 0x7f || c == '\\' {
			return false
		}
	}
	if bytes.Contains(path, []byte("//")) {
		return false
	}
	if bytes.IndexByte(path, '%') < 0 {
		return !dotted(path)
	}
	return cleanEncoded(string(path))
}

func cleanEncoded(path string) bool {
	decoded := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return false
			}
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if hi > 15 || lo > 15 {
				return false
			}
			if c = hi<<4 | lo; c == '/' || c == '\\' || c < 0x20 || c == 0x7f {
				return false
			}
			i += 2
		}
		decoded = append(decoded, c)
	}
	return !dotted(decoded)
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// dotted reports whether a segment of path is "." or "..".
func dotted(path []byte) bool {
	if bytes.IndexByte(path, '.') < 0 {
		return false
	}
	for segment := range strings.SplitSeq(string(path), "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}
