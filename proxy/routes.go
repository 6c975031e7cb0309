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
	// json: a plain answer is JSON, so that an empty one is none.
	json bool
	// choices: a plain answer has them, and one without any is none.
	choices bool
	// texts: a stream's events have their text under "text", not in a "delta".
	texts bool
}

// builtin are the paths that every gateway has.
var builtin = []route{
	{path: "/chat/completions", json: true, choices: true, terminated: true, streamOptions: true},
	{path: "/completions", json: true, choices: true, terminated: true, texts: true},
	{path: "/embeddings", json: true},
	{path: "/responses", json: true, dialect: responses, terminated: true},
	{path: "/messages", json: true, dialect: anthropic, terminated: true},
	{path: "/messages/count_tokens", json: true, dialect: anthropic},
	{path: "/images/generations", json: true},
	{path: "/audio/speech"},
	{path: "/moderations", json: true},
	{path: "/rerank", json: true},
}

// newRouter compiles the routes of s.
func newRouter(s *snapshot) *router.Router {
	rt := router.New()
	rt.RedirectTrailingSlash = false
	rt.RedirectFixedPath = false
	rt.HandleOPTIONS = false
	rt.NotFound = func(ctx *fasthttp.RequestCtx) { requestOf(ctx).refuseNotFound() }
	rt.MethodNotAllowed = func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Request.URI().PathOriginal()) == "/*" { // the router takes it for the whole server
			ctx.Response.Header.Del(fasthttp.HeaderAllow)
			rt.NotFound(ctx)
			return
		}
		requestOf(ctx).refuseMethod()
	}
	routes := routes{rt, map[string]bool{}}
	// What has a name of its own comes before the short names of what is below /v1.
	routes.get("/", (*request).hello)
	routes.get("/api/hello", (*request).hello)
	routes.get("/healthz", (*request).healthz)
	routes.get("/readyz", (*request).readyz)
	routes.post("/api/llm", &builtin[0])
	for i := range builtin {
		routes.post("/v1"+builtin[i].path, &builtin[i])
	}
	for _, path := range s.config.Paths {
		routes.post("/v1"+path, &route{path: path})
	}
	for _, prefix := range [...]string{"/v1", ""} {
		routes.get(prefix+"/models", (*request).listModels)
		routes.get(prefix+"/models/{id:*}", (*request).showModel)
		routes.get(prefix+"/key", (*request).showKey)
	}
	for i := range builtin {
		routes.post(builtin[i].path, &builtin[i])
	}
	for _, path := range s.config.Paths {
		routes.post(path, &route{path: path})
	}
	return rt
}

// routes puts paths into a router, the first of each.
type routes struct {
	rt    *router.Router
	known map[string]bool
}

func (rs routes) post(path string, to *route) {
	rs.add([]string{fasthttp.MethodPost}, path, func(ctx *fasthttp.RequestCtx) { requestOf(ctx).proxied(to) })
}

func (rs routes) get(path string, answer func(*request)) {
	rs.add([]string{fasthttp.MethodGet, fasthttp.MethodHead}, path, func(ctx *fasthttp.RequestCtx) { answer(requestOf(ctx)) })
}

func (rs routes) add(methods []string, path string, handler fasthttp.RequestHandler) {
	if rs.known[path] {
		return
	}
	rs.known[path] = true
	for _, method := range methods {
		rs.rt.Handle(method, path, handler)
	}
}

// trimSlash takes a slash off the path's end: it makes no difference here.
func trimSlash(uri *fasthttp.URI) {
	if path := uri.PathOriginal(); len(path) > 1 && path[len(path)-1] == '/' {
		uri.SetPathBytes(path[:len(path)-1])
	}
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

// cleanEncoded is cleanPath for a path with escapes. Only a model's name may have an encoded slash.
func cleanEncoded(path string) bool {
	named := strings.HasPrefix(strings.TrimPrefix(path, "/v1"), "/models/")
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
			if c = hi<<4 | lo; c == '/' && !named || c == '\\' || c < 0x20 || c == 0x7f {
				return false
			}
			i += 2
		}
		decoded = append(decoded, c)
	}
	return !dotted(decoded) && !bytes.Contains(decoded, []byte("//"))
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
