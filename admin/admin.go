// Package admin is the other port: gateway keys, status, reload, metrics, health and
// profiles. Nothing of it is on the path of a client's request, so it is net/http.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/config"
	"sluice/history"
	"sluice/keys"
	"sluice/metrics"
	"sluice/pool"
	"sluice/proxy"
)

// Admin serves the admin port.
type Admin struct {
	live   *config.Live
	keys   *keys.Store
	proxy  *proxy.Proxy
	pool   *pool.Pool
	log    *slog.Logger
	clock  func() time.Duration
	data   net.Addr
	server *http.Server
	ln     net.Listener
	conns  atomic.Int64
	logins *logins
	codes  *signInCodes

	series   *history.Book
	version  string
	follows  limited // who follows the requests
	played   limited // requests of the playground
	stop     chan struct{}
	stopping sync.Once
}

// Parts are what an Admin shows and changes.
type Parts struct {
	Live    *config.Live
	Keys    *keys.Store
	Proxy   *proxy.Proxy
	Pool    *pool.Pool
	Metrics *metrics.Metrics
	Log     *slog.Logger
	Clock   func() time.Duration // the keys'
	Data    net.Addr             // of the data port
	Series  *history.Book
	Version string
}

// New makes an Admin; Start serves it.
func New(parts Parts) *Admin {
	log := parts.Log
	a := &Admin{live: parts.Live, keys: parts.Keys, proxy: parts.Proxy, pool: parts.Pool, log: log, clock: parts.Clock, data: parts.Data,
		logins: newLogins(log, parts.Metrics.AdminLoginFailures), codes: newSignInCodes(), series: parts.Series, version: parts.Version,
		follows: limited{most: 16}, played: limited{most: 4}, stop: make(chan struct{})}
	metricsHandler := promhttp.HandlerFor(parts.Metrics.Registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)})
	a.server = &http.Server{
		Handler:           a.handler(metricsHandler),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      2 * time.Minute, // a profile takes up to one
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return a
}

// Start serves ln until Shutdown. The channel gives the error that ended the serving.
func (a *Admin) Start(ln net.Listener) <-chan error {
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && a.live.Status().Config.Admin.TLS == nil {
		a.log.Warn("the admin port is open to other machines, without TLS", "listen", ln.Addr().String())
	}
	a.ln = ln
	a.server.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			a.conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			a.conns.Add(-1)
		}
	}
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(ln) }()
	return served
}

// lastRequests is how long connections have for a request that is on its way when the port closes.
const lastRequests = time.Second

// Shutdown stops taking connections and waits for requests under way until ctx ends, then cuts
// them.
func (a *Admin) Shutdown(ctx context.Context) {
	a.stopping.Do(func() { close(a.stop) }) // what would go on by itself
	// The server's own Shutdown drops a request that it is just reading. So it comes last.
	a.ln.Close()
	a.server.SetKeepAlivesEnabled(false)
	for until := time.Now().Add(lastRequests); a.conns.Load() > 0 && ctx.Err() == nil && time.Now().Before(until); {
		time.Sleep(5 * time.Millisecond)
	}
	if a.server.Shutdown(ctx) != nil {
		a.server.Close()
	}
}

func (a *Admin) handler(metricsHandler http.Handler) http.Handler {
	mux := http.NewServeMux()
	open := map[string]bool{"/healthz": true, "/readyz": true, "/api/sign-in": true}
	route := func(pattern string, methods map[string]http.HandlerFunc) {
		allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			method := r.Method
			if method == http.MethodHead && methods[method] == nil {
				method = http.MethodGet
			}
			h := methods[method]
			if h == nil {
				w.Header().Set("Allow", allow)
				writeError(w, 405, "method_not_allowed", "", "this path takes "+allow)
				return
			}
			h(w, r)
		})
	}
	get := func(pattern string, h http.HandlerFunc) {
		route(pattern, map[string]http.HandlerFunc{http.MethodGet: h})
	}

	get("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, map[string]string{"status": "ok"}) })
	get("/readyz", a.readyz)
	route("/api/keys", map[string]http.HandlerFunc{"GET": a.listKeys, "POST": a.createKey})
	route("/api/keys/{id}", map[string]http.HandlerFunc{
		"GET": a.showKey, "PATCH": a.updateKey, "DELETE": a.deleteKey})
	route("/api/keys/{id}/rotate", map[string]http.HandlerFunc{"POST": a.rotateKey})
	get("/api/export", a.exportKeys)
	route("/api/import", map[string]http.HandlerFunc{"POST": a.importKeys})
	get("/api/models", a.listModels)
	get("/api/upstreams", a.listUpstreams)
	get("/api/status", a.showStatus)
	get("/api/series", a.showSeries)
	get("/api/requests", a.listRequests)
	get("/api/requests/stream", a.followRequests)
	get("/api/requests/{id}", a.showRequest)
	route("/api/upstreams/{name}/drain", map[string]http.HandlerFunc{"POST": a.drain(true)})
	route("/api/upstreams/{name}/undrain", map[string]http.HandlerFunc{"POST": a.drain(false)})
	get("/api/errors", a.listErrors)
	route("/api/playground", map[string]http.HandlerFunc{"POST": a.play})
	get("/api/config", a.showConfig)
	get("/api/config/diff", a.showConfigDiff)
	route("/api/reload", map[string]http.HandlerFunc{"POST": a.reload})
	route("/api/sign-in/codes", map[string]http.HandlerFunc{"POST": a.createSignInCode})
	route("/api/sign-in", map[string]http.HandlerFunc{"POST": a.signIn})
	get("/metrics", metricsHandler.ServeHTTP)
	get("/debug/pprof/", pprof.Index)
	get("/debug/pprof/cmdline", pprof.Cmdline)
	get("/debug/pprof/profile", bounded(pprof.Profile))
	route("/debug/pprof/symbol", map[string]http.HandlerFunc{"GET": pprof.Symbol, "POST": pprof.Symbol})
	get("/debug/pprof/trace", bounded(pprof.Trace))
	for at, h := range page() {
		open[at] = true
		if at == "/" {
			at = "/{$}"
		}
		get(at, h)
	}
	mux.HandleFunc("/", notFound)
	authorized := a.authorized(mux.ServeHTTP)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				a.log.Error("panic in an admin request", "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				writeError(w, 500, "internal", "", "the gateway failed; the log says how")
			}
		}()
		switch {
		case open[r.URL.Path]:
			mux.ServeHTTP(w, r)
		case r.URL.Path != path.Clean(r.URL.Path) && r.URL.Path != "/debug/pprof/":
			notFound(w, r) // the mux would redirect
		default:
			authorized(w, r)
		}
	})
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeError(w, 404, "not_found", "", "there is nothing at this path")
}

// longestProfile is the most that a profile or a trace may take, in seconds.
const longestProfile = 60

// bounded refuses what would take longer; the time is in the query.
func bounded(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if text := r.URL.Query().Get("seconds"); text != "" {
			if n, err := strconv.ParseFloat(text, 64); err != nil || !(n > 0 && n <= longestProfile) {
				writeError(w, 400, "invalid_request", "seconds", "seconds must be above 0 and at most "+strconv.Itoa(longestProfile))
				return
			}
		}
		h(w, r)
	}
}

// authorized lets requests through that carry the admin token, compared by hash and in
// constant time. Only after that does it matter how often the address has failed.
func (a *Admin) authorized(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(token))
		want := sha256.Sum256([]byte(a.live.Status().Config.Admin.Token.Reveal()))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !strings.EqualFold(scheme, "Bearer") {
			a.refuseLogin(w, r, "send Authorization: Bearer ADMIN_TOKEN")
			return
		}
		h(w, r)
	}
}

// refuseLogin answers a failed login, and slows its address down after some of them.
func (a *Admin) refuseLogin(w http.ResponseWriter, r *http.Request, message string) {
	if wait := a.logins.fail(time.Now(), r.RemoteAddr, r.URL.Path); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		writeError(w, 429, "rate_limit_exceeded", "", "too many failed logins from this address; the right token is taken at any time")
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	writeError(w, 401, "invalid_api_key", "", message)
}

func (a *Admin) readyz(w http.ResponseWriter, r *http.Request) {
	if !a.proxy.Ready() {
		w.Header().Set("Retry-After", "1")
		writeError(w, 503, "shutting_down", "", "the gateway is draining")
		return
	}
	answer := map[string]string{"status": "ready"}
	if r.URL.Query().Has("verbose") {
		answer["keys"] = a.proxy.StoreState()
	}
	writeJSON(w, 200, answer)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("BUG: an answer of our own is not JSON: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that has left is no news
}

// writeError answers in OpenAI's error shape, as the data port does.
func writeError(w http.ResponseWriter, status int, code, param, message string) {
	typ := "invalid_request_error"
	switch {
	case status == 401:
		typ = "authentication_error"
	case status == 429:
		typ = "rate_limit_error"
	case status == 502:
		typ = "upstream_error"
	case status == 503:
		typ = "overloaded_error"
	case status == 500:
		typ = "internal_error"
	}
	var p any
	if param != "" {
		p = param
	}
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "type": typ, "param": p, "code": code}})
}
