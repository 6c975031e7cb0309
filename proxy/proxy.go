// Package proxy is the data port: one request from its bearer token to its last byte.
// docs/architecture.md tells the life of a request; the stages there are the functions
// here.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"

	"sluice/client"
	"sluice/config"
	"sluice/keys"
	"sluice/limiter"
	"sluice/metrics"
	"sluice/pool"
	"sluice/record"
)

// Proxy serves the data port.
type Proxy struct {
	keys    *keys.Store
	pool    *pool.Pool
	metrics *metrics.Metrics
	log     *slog.Logger
	clock   func() time.Duration

	snapshot atomic.Pointer[snapshot]
	gate     limiter.Gate // limits.in_flight
	memory   limiter.Gate // limits.memory, in bytes
	machine  int64        // what limits.memory is where the file does not say
	draining atomic.Bool
	lastIdle atomic.Int64 // how long a connection may be idle while draining; without bound before
	refused  [kinds]interface{ Inc() }
	faults   map[string]interface{ Inc() } // by errorKind

	recorder *record.Recorder // its access log is started by the first configuration that asks for it
	server   *fasthttp.Server
	conns    *client.Conns

	cutPause time.Duration // cutPause; a test may have another

	// A process has one Proxy. A test may have several, each with a clock of its own, and
	// a stream's timer and channels belong to one of them.
	requests, streams sync.Pool

	bodies [64]sync.Pool // of *[]byte, each larger than freeMemory, by the length of their size in bits
}

// snapshot is one configuration, compiled. A request uses one from its first to its last
// byte.
type snapshot struct {
	config *config.Config
	set    *pool.Set
	router *router.Router
	cors   *crossOrigin
	loaded time.Time
	// modelFields are the names that clients may not use: modelFields.
	modelFields []string
}

// Parts are what a Proxy works with.
type Parts struct {
	Keys    *keys.Store
	Pool    *pool.Pool
	Metrics *metrics.Metrics
	Log     *slog.Logger
	Clock   func() time.Duration // the keys' and the pool's
	// Memory is how many bytes of bodies may be held where the configuration does not say.
	Memory int64
	// Access is where the access log goes.
	Access io.Writer
	// Kept is how many of the newest requests are kept; record.Kept for 0.
	Kept int
}

// New makes a Proxy; Apply it a configuration before it serves.
func New(parts Parts) *Proxy {
	// A connection would keep the buffer of the largest answer that it ever carried, and of what
	// it keeps nobody counts.
	fasthttp.SetBodySizePoolLimit(2*freeMemory, 2*freeMemory)
	m := parts.Metrics
	p := &Proxy{keys: parts.Keys, pool: parts.Pool, metrics: m, log: parts.Log, clock: parts.Clock, machine: parts.Memory, cutPause: cutPause,
		faults: map[string]interface{ Inc() }{}}
	p.lastIdle.Store(math.MaxInt64)
	for k := range p.refused {
		p.refused[k] = m.Refused(kindTable[k].code)
		p.faults[kindTable[k].fault] = m.Error(kindTable[k].fault)
	}
	for _, kind := range [...]string{faultLeft, faultRejected, faultStatus} {
		p.faults[kind] = m.Error(kind)
	}
	p.recorder = record.New(record.Parts{Access: parts.Access, Kept: parts.Kept, Clock: parts.Clock, Kinds: slices.Collect(maps.Keys(p.faults)),
		Dropped: func(lines int) { m.AccessLinesDropped.Add(float64(lines)) }})
	m.Gauge(metrics.Memory, metrics.MemoryHelp, func() float64 { return float64(p.memory.InFlight()) })
	m.Gauge(metrics.MemoryLimit, metrics.MemoryLimitHelp, func() float64 { return float64(p.memory.Limit()) })
	m.Gauge(metrics.InFlight, metrics.InFlightHelp, func() float64 { return float64(p.gate.InFlight()) })
	return p
}

// Apply makes cfg take effect for every request that begins after it.
func (p *Proxy) Apply(cfg *config.Config) error {
	s := &snapshot{config: cfg, set: p.pool.Build(cfg), cors: newCrossOrigin(cfg.CORS.Origins), loaded: time.Now(), modelFields: modelFields(cfg)}
	s.router = newRouter(s)
	p.gate.SetLimit(int64(cfg.Limits.InFlight))
	p.keys.HoldStrictly(cfg.Keys.WithoutStore == config.Strict)
	p.memory.SetLimit(cmp.Or(int64(cfg.Limits.Memory), p.machine))
	if cfg.AccessLog > 0 {
		p.recorder.Start()
	}
	p.snapshot.Store(s)
	p.pool.Adopt(s.set)
	return nil
}

// Set is the upstreams and models in effect.
func (p *Proxy) Set() *pool.Set { return p.snapshot.Load().set }

// Recorder has what was told of the requests that are over.
func (p *Proxy) Recorder() *record.Recorder { return p.recorder }

// InFlight is how many requests and streams are in flight.
func (p *Proxy) InFlight() int64 { return p.gate.InFlight() }

// Ready reports whether the proxy takes traffic: it is not draining.
func (p *Proxy) Ready() bool { return !p.draining.Load() }

// Start serves ln until Shutdown. The channel gives the error that ended the serving,
// nil after Shutdown.
func (p *Proxy) Start(ln net.Listener) <-chan error {
	cfg := p.snapshot.Load().config
	each := int64(cfg.Limits.Head) + client.ConnMemory
	if cfg.TLS != nil {
		each += client.TLSMemory
	}
	p.conns = client.Listen(ln, client.Settings{
		Log:          p.log,
		WriteTimeout: func() time.Duration { return p.snapshot.Load().config.Timeouts.Client.Write.Std() },
		Left:         p.metrics.CancelledUpstreams.Inc,
		Memory:       &p.memory,
		Each:         each,
	})
	p.server = &fasthttp.Server{
		Handler:                      p.handle,
		ErrorHandler:                 p.refuseHead,
		HeaderReceived:               p.headReceived,
		ExpectHandler:                p.expect,
		ConnState:                    p.connState,
		Logger:                       serverLog{p.log},
		SecureErrorLogMessage:        true,
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		LazyRequestTime:              true, // a request has its own
		CloseOnShutdown:              true,
		Concurrency:                  1 << 20,
		ReadBufferSize:               int(cfg.Limits.Head),
		WriteBufferSize:              client.ServerBuffer,
		// Of a longer body only this much is read before the handler is called, which reads
		// the rest: a key and a place come first. limits.body is held there.
		MaxRequestBodySize: 1,
	}
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(p.conns) }()
	return served
}

// abortGrace is how long requests have to say that they were cut.
const abortGrace = 2 * time.Second

// Shutdown stops taking connections and waits until what is in flight has ended. Each connection
// that a client keeps gets one more answer, or is closed when it has been idle for idle. When ctx
// ends first, requests and streams are told that the process shuts down.
func (p *Proxy) Shutdown(ctx context.Context, idle time.Duration) {
	p.lastIdle.Store(int64(idle))
	p.draining.Store(true)
	defer p.conns.Stop()
	hard, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		p.log.Warn("requests are cut at the end of timeouts.shutdown", "in_flight", p.gate.InFlight())
		p.conns.CutAll()
		time.AfterFunc(abortGrace, cancel)
	})
	defer stop()
	p.conns.Drain(ctx, idle)
	if err := p.server.ShutdownWithContext(hard); err != nil {
		p.log.Warn("connections are left open at the end", "error", err)
	}
	p.recorder.Close()
}

// expect decides about a client that asks before it sends its body: one that would be
// refused is refused now.
func (p *Proxy) expect(ctx *fasthttp.RequestCtx) int {
	r := p.begin(ctx)
	defer p.end(r.conn)
	r.readLine()
	r.readClientAddr()
	f := r.checkHead()
	if f == nil {
		f = r.authenticate()
	}
	if limit := int(r.snapshot.config.Limits.Body); f == nil && ctx.Request.Header.ContentLength() > limit {
		f = tooLarge(limit)
	}
	if f == nil && !p.roomFor(int64(ctx.Request.Header.ContentLength())) {
		f = r.outOfMemory()
	}
	if f == nil {
		return fasthttp.StatusContinue
	}
	r.refuse(f)
	return r.status
}

// handle is one request. What recovers its panic is end.
func (p *Proxy) handle(ctx *fasthttp.RequestCtx) {
	defer p.closeIfDraining(ctx)
	r := p.begin(ctx)
	defer p.end(r.conn)
	r.readLine()
	r.readClientAddr()
	if f := r.checkHead(); f != nil {
		r.refuse(f)
		ctx.SetConnectionClose() // its body may not be what the server takes for it
		return
	}
	if !cleanPath(ctx.Request.URI().PathOriginal()) {
		r.refuse(refusal(invalidRequest, "", `the path must not have empty, "." or ".." segments, encoded slashes, backslashes or control characters`))
		return
	}
	if r.preflight() {
		return
	}
	trimSlash(ctx.Request.URI())
	r.snapshot.router.Handler(ctx)
}

// closeIfDraining has an answer be the last on its connection, and say so.
func (p *Proxy) closeIfDraining(ctx *fasthttp.RequestCtx) {
	if p.draining.Load() {
		ctx.SetConnectionClose()
		ctx.Conn().(*client.Conn).Linger() // it may have sent the next already
	}
}

// requestOf is the request that ctx's connection works on.
func requestOf(ctx *fasthttp.RequestCtx) *request { return current(ctx.Conn().(*client.Conn)) }

// current is the request that c works on; nil once it was handed over.
func current(c *client.Conn) *request {
	r, _ := c.Current().(*request)
	return r
}

// begin takes a request struct for ctx.
func (p *Proxy) begin(ctx *fasthttp.RequestCtx) *request {
	r := p.acquireRequest()
	r.ctx, r.snapshot, r.began = ctx, p.snapshot.Load(), time.Now()
	r.conn = ctx.Conn().(*client.Conn)
	r.conn.Begin(r)
	r.readID()
	return r
}

// end finishes the request that c works on, unless it was handed over. It is deferred, so
// that it sees a panic: that is this request's 500 and nobody else's.
func (p *Proxy) end(c *client.Conn) {
	v := recover()
	r := current(c)
	if v != nil {
		p.panicked("panic in a request", v)
		if r != nil {
			r.giveUp()
			r.refuse(refusal(internal, "", "the gateway failed; the request may or may not have reached an upstream"))
		}
	}
	if r != nil {
		c.HandOver()
		r.finish()
	}
}

// connState keeps a connection's read deadline: fasthttp's own settings cannot change
// while it serves, these follow the configuration.
func (p *Proxy) connState(c net.Conn, state fasthttp.ConnState) {
	t := &p.snapshot.Load().config.Timeouts.Client
	conn := c.(*client.Conn)
	switch state {
	case fasthttp.StateNew:
		conn.Opened(t.Header.Std)
	case fasthttp.StateActive:
		conn.Active(t.Header.Std)
	case fasthttp.StateIdle:
		conn.Idle(func() time.Duration { return min(t.Idle.Std(), time.Duration(p.lastIdle.Load())) })
	}
}

// headReceived gives the body its own time.
func (p *Proxy) headReceived(*fasthttp.RequestHeader) fasthttp.RequestConfig {
	return fasthttp.RequestConfig{ReadTimeout: p.snapshot.Load().config.Timeouts.Client.Body.Std()}
}

// recovered is deferred where a panic has no other consequence than to be told.
func (p *Proxy) recovered(what string) {
	if v := recover(); v != nil {
		p.panicked(what, v)
	}
}

// panicked tells of a panic that was recovered.
func (p *Proxy) panicked(what string, v any) {
	p.metrics.Panics.Inc()
	p.log.Error(what, "panic", v, "stack", string(debug.Stack()))
}

// serverLog is where fasthttp logs. Its errors quote what clients sent, credentials
// included, even with SecureErrorLogMessage; so of a connection's only the kind is kept.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	if strings.Contains(format, "when accepting new connections") {
		l.log.Error(fmt.Sprintf(format, args...))
		return
	}
	l.log.Debug("server", "message", format)
}

func isSmallBuffer(err error) bool {
	var small *fasthttp.ErrSmallBuffer
	return errors.As(err, &small)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
