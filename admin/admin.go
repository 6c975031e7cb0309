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
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/config"
	"sluice/keys"
	"sluice/metrics"
	"sluice/proxy"
)

// Admin serves the admin port.
type Admin struct {
	live   *config.Live
	keys   *keys.Store
	proxy  *proxy.Proxy
	log    *slog.Logger
	server *http.Server
}

// New makes an Admin; Start serves it.
func New(live *config.Live, store *keys.Store, p *proxy.Proxy, m *metrics.Metrics, log *slog.Logger) *Admin {
	a := &Admin{live: live, keys: store, proxy: p, log: log}
	metricsHandler := promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)})
	a.server = &http.Server{
		Handler:           a.handler(metricsHandler),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      5 * time.Minute, // a profile takes as long as it is asked to
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return a
}

// Start serves ln until Shutdown. The channel gives the error that ended the serving.
func (a *Admin) Start(ln net.Listener) <-chan error {
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		a.log.Warn("the admin port is open to other machines, without TLS", "listen", ln.Addr().String())
	}
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(ln) }()
	return served
}

// Shutdown waits for requests under way until ctx ends, then cuts them.
func (a *Admin) Shutdown(ctx context.Context) {
	if a.server.Shutdown(ctx) != nil {
		a.server.Close()
	}
}

func (a *Admin) handler(metricsHandler http.Handler) http.Handler {
	mux := http.NewServeMux()
	route := func(path string, methods map[string]http.HandlerFunc) {
		allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
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
	get := func(path string, h http.HandlerFunc) { route(path, map[string]http.HandlerFunc{http.MethodGet: h}) }

	get("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, map[string]string{"status": "ok"}) })
	get("/readyz", a.readyz)
	route("/api/keys", map[string]http.HandlerFunc{"GET": a.authorized(a.listKeys), "POST": a.authorized(a.createKey)})
	route("/api/keys/{id}", map[string]http.HandlerFunc{
		"GET": a.authorized(a.showKey), "PATCH": a.authorized(a.updateKey), "DELETE": a.authorized(a.deleteKey)})
	route("/api/keys/{id}/rotate", map[string]http.HandlerFunc{"POST": a.authorized(a.rotateKey)})
	get("/api/models", a.authorized(a.listModels))
	get("/api/upstreams", a.authorized(a.listUpstreams))
	get("/api/config", a.authorized(a.showConfig))
	route("/api/reload", map[string]http.HandlerFunc{"POST": a.authorized(a.reload)})
	get("/metrics", a.authorized(metricsHandler.ServeHTTP))
	get("/debug/pprof/", a.authorized(pprof.Index))
	get("/debug/pprof/cmdline", a.authorized(pprof.Cmdline))
	get("/debug/pprof/profile", a.authorized(pprof.Profile))
	route("/debug/pprof/symbol", map[string]http.HandlerFunc{"GET": a.authorized(pprof.Symbol), "POST": a.authorized(pprof.Symbol)})
	get("/debug/pprof/trace", a.authorized(pprof.Trace))
	mux.HandleFunc("/", a.authorized(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, 404, "not_found", "", "there is nothing at this path")
	}))
	return mux
}

// authorized lets requests through that carry the admin token, compared by hash and in
// constant time.
func (a *Admin) authorized(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(token))
		want := sha256.Sum256([]byte(a.live.Status().Config.Admin.Token.Reveal()))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !strings.EqualFold(scheme, "Bearer") {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeError(w, 401, "invalid_api_key", "", "send Authorization: Bearer ADMIN_TOKEN")
			return
		}
		h(w, r)
	}
}

func (a *Admin) readyz(w http.ResponseWriter, _ *http.Request) {
	if !a.proxy.Ready() {
		w.Header().Set("Retry-After", "1")
		writeError(w, 503, "shutting_down", "", "the gateway is draining")
		return
	}
	writeJSON(w, 200, map[string]string{"status": "ready"})
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
