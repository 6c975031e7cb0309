package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fastjson"

	"sluice/keys"
	"sluice/limiter"
	"sluice/pool"
)

// request is all that is known of one request. The connection's goroutine owns it until
// it is handed over to what writes the answer's body; finish, called by whoever owns it
// last, gives back all that was taken.
type request struct {
	proxy    *Proxy
	ctx      *fasthttp.RequestCtx // nil once handed over
	conn     *clientConn
	snapshot *snapshot
	route    *route // nil outside the proxied paths
	began    time.Time
	id       []byte

	key        *keys.Key
	inGate     bool // has a place in limits.in_flight
	inKeyGate  bool // and in the key's
	limited    bool // the key has a window, and this is its state
	limitState limiter.State

	json     jsonState
	body     []byte // as the client sent it
	bodyRead bool   // to its end
	fields   fields // of the body, that concern the gateway
	models   []*pool.Model

	chosen    chosen // for the first attempt
	exchange  *pool.Exchange
	attempts  []attempt
	failed    *failure // of the newest attempt, if it is not answered with
	holding   bool     // the newest attempt's HTTP error is kept: its head in exchange, its
	held      []byte   // body here
	lastModel bool     // no other model follows
	last      bool     // nor another try: the attempt under way is the last possible
	stream    bool     // the answer is one
	status    int
	failure   *failure // the gateway's own answer
	scratch   []byte
	upstream  [][]byte // the body that goes upstream, in pieces
}

// jsonState is what JSON is read and built with, pooled together: values live until the
// parser's next use.
type jsonState struct {
	parser fastjson.Parser
	arena  fastjson.Arena
}

// chosen is a place that was taken before the request was admitted.
type chosen struct {
	model  int
	target *pool.Target // nil if none was taken, or once the attempt has begun
	place  pool.Place
}

// attempt is one try at one target.
type attempt struct {
	target *pool.Target
	began  time.Time
	took   time.Duration
	status int // 0 without one
	failed bool
	cause  pool.Cause // if failed

	entered    bool // has its place at the target
	place      pool.Place
	retryAfter time.Duration
}

func (p *Proxy) acquireRequest() *request {
	r, _ := p.requests.Get().(*request)
	if r == nil {
		r = new(request)
	}
	r.proxy = p
	return r
}

// keepBuffer is the largest buffer that is kept for the next request.
const keepBuffer = 256 << 10

func (r *request) releaseStruct() {
	p := r.proxy
	r.json.arena.Reset()
	clear(r.attempts)
	clear(r.models)
	clear(r.upstream[:cap(r.upstream)])
	if cap(r.body) > keepBuffer {
		p.giveBack(r.body)
		r.body = nil
	}
	*r = request{
		json:     r.json,
		id:       r.id[:0],
		body:     r.body[:0],
		upstream: r.upstream[:0],
		scratch:  reuse(r.scratch),
		attempts: r.attempts[:0],
		models:   r.models[:0],
		fields:   fields{models: r.fields.models[:0]},
	}
	p.requests.Put(r)
}

func reuse(b []byte) []byte {
	if cap(b) > keepBuffer {
		return nil
	}
	return b[:0]
}

// proxied is the straight line of a request to a model.
func (r *request) proxied(to *route) {
	r.route = to
	for _, stage := range [...]func() *failure{r.authenticate, r.enter, r.parse, r.choose, r.admit, r.forward} {
		if f := stage(); f != nil {
			r.refuse(f)
			return
		}
	}
}

// enter takes a place among all requests and one among the key's.
func (r *request) enter() *failure {
	if !r.proxy.gate.Enter() {
		f := refusal(overloaded, "", "the gateway is at limits.in_flight (%d requests); try again", r.proxy.gate.Limit())
		f.retryAfter = time.Second
		return f
	}
	r.inGate = true
	if !r.key.Gate.Enter() {
		f := refusal(rateLimitExceeded, "", "the key is at its limit of %d concurrent requests (limits.concurrent)", r.key.Gate.Limit())
		f.retryAfter = time.Second
		return f
	}
	r.inKeyGate = true
	return nil
}

// choose takes a place for the first attempt: a request that can be sent nowhere costs its
// key nothing.
func (r *request) choose() *failure {
	for i, model := range r.models {
		if target, place := r.place(model); target != nil {
			r.chosen = chosen{i, target, place}
			return nil
		}
	}
	return r.noneServes()
}

// admit charges the key's window with the request. Nothing after it but the forwarding
// can fail, so what is charged was forwarded.
func (r *request) admit() *failure {
	state, admitted, limited := r.key.Admit(r.proxy.clock())
	r.limitState, r.limited = state, limited
	if admitted {
		return nil
	}
	period := time.Minute
	if p := r.key.Spec().Limits.Period; p != nil {
		period = time.Duration(*p)
	}
	f := refusal(rateLimitExceeded, "", "the key is at its limit of %d requests per %s (limits.requests); try again in %s",
		state.Limit, period, state.RetryAfter.Round(time.Millisecond))
	f.retryAfter = state.RetryAfter
	return f
}

// dialect is the error shape that the client reads.
func (r *request) dialect() dialect {
	if r.route != nil {
		return r.route.dialect
	}
	if bytes.HasPrefix(r.ctx.Request.URI().PathOriginal(), anthropicPath) {
		return anthropic // refused before its route was found, or by its method
	}
	return openAI
}

var anthropicPath = []byte("/v1/messages")

// readID takes the client's request id, or makes one.
func (r *request) readID() {
	if id := r.ctx.Request.Header.Peek("X-Request-Id"); len(id) > 0 && len(id) <= 128 && visible(id) {
		r.id = append(r.id[:0], id...)
		return
	}
	const digits = "0123456789abcdef"
	r.id = append(r.id[:0], "req_"...)
	for range 2 {
		for n, i := rand.Uint64(), 0; i < 16; i++ {
			r.id = append(r.id, digits[n&15])
			n >>= 4
		}
	}
}

func visible(b []byte) bool {
	for _, c := range b {
		if c < 0x21 || c > 0x7e {
			return false
		}
	}
	return true
}

// The names of what the gateway adds to an answer, in the spelling that fasthttp writes.
var (
	headerRequestID = []byte("X-Request-Id")
	headerModel     = []byte("X-Sluice-Model")
	headerUpstream  = []byte("X-Sluice-Upstream")
	headerAttempts  = []byte("X-Sluice-Attempts")
	headerTrail     = []byte("X-Sluice-Trail")
	headerLimit     = []byte("X-Ratelimit-Limit-Requests")
	headerRemaining = []byte("X-Ratelimit-Remaining-Requests")
	headerReset     = []byte("X-Ratelimit-Reset-Requests")
)

// setOwnHeaders puts what the gateway adds to every answer into the response's head.
func (r *request) setOwnHeaders() {
	h := &r.ctx.Response.Header
	h.SetCanonical(headerRequestID, r.id)
	if n := len(r.attempts); n > 0 {
		last := r.attempts[n-1].target
		h.SetCanonical(headerModel, borrowBytes(last.Model))
		h.SetCanonical(headerUpstream, borrowBytes(last.Upstream.Name))
		h.SetCanonical(headerTrail, r.trail())
	} else if len(r.models) > 0 {
		h.SetCanonical(headerModel, borrowBytes(r.models[0].Name))
	}
	r.setNumber(headerAttempts, int64(len(r.attempts)))
	if r.key == nil {
		return
	}
	if !r.limited {
		// Nothing was charged yet; what is left is shown all the same.
		r.limitState, r.limited = r.key.Left(r.proxy.clock())
	}
	if r.limited {
		r.setNumber(headerLimit, r.limitState.Limit)
		r.setNumber(headerRemaining, r.limitState.Remaining)
		r.scratch = appendDuration(r.scratch[:0], r.limitState.Reset)
		h.SetCanonical(headerReset, r.scratch)
	}
}

func (r *request) setNumber(name []byte, n int64) {
	r.scratch = strconv.AppendInt(r.scratch[:0], n, 10)
	r.ctx.Response.Header.SetCanonical(name, r.scratch)
}

// appendDuration writes d, rounded up, as OpenAI does: "120ms", "7.660s".
func appendDuration(dst []byte, d time.Duration) []byte {
	ms := int64((max(0, d) + time.Millisecond - 1) / time.Millisecond)
	if ms < 1000 {
		return append(strconv.AppendInt(dst, ms, 10), "ms"...)
	}
	dst = append(strconv.AppendInt(dst, ms/1000, 10), '.')
	ms %= 1000
	return append(dst, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 's')
}

// maxTrail bounds the trail's header.
const maxTrail = 2 << 10

// trail writes the attempts as model@upstream;status-or-cause;milliseconds, the oldest
// left out where they do not fit.
func (r *request) trail() []byte {
	b := r.scratch[:0]
	for i := range r.attempts {
		b = r.attempts[i].appendTrail(b)
		for len(b) > maxTrail {
			b = b[:copy(b, b[bytes.IndexByte(b, ',')+1:])]
		}
	}
	r.scratch = b
	return b
}

func (a *attempt) appendTrail(b []byte) []byte {
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, a.target.Model...)
	b = append(b, '@')
	b = append(b, a.target.Upstream.Name...)
	b = append(b, ';')
	if a.status != 0 && (!a.failed || a.cause == pool.StatusRefused || a.cause == pool.CredentialRefused || a.cause == pool.Redirected) {
		b = strconv.AppendInt(b, int64(a.status), 10)
	} else {
		b = append(b, a.cause.String()...)
	}
	b = append(b, ';')
	return strconv.AppendInt(b, a.took.Milliseconds(), 10)
}

// finish gives back what the request took and counts it. It is called exactly once, by
// the request's last owner.
func (r *request) finish() {
	if r.exchange != nil {
		r.replied()
		pool.Release(r.exchange)
		r.exchange = nil
	}
	if target := r.chosen.target; target != nil { // it was not admitted
		target.Leave(r.proxy.clock(), r.chosen.place, pool.Unknown)
	}
	r.leave()
	if r.inKeyGate {
		r.key.Gate.Leave()
	}
	if r.inGate {
		r.proxy.gate.Leave()
	}
	took := time.Since(r.began)
	if n := len(r.attempts); n > 0 {
		r.attempts[n-1].target.Metrics.Done(r.status, took)
	}
	if r.failure != nil && r.failure.cause != nil {
		r.proxy.log.Warn("request failed", "request_id", string(r.id), "code", kindTable[r.failure.kind].code,
			"trail", string(r.trail()), "error", r.failure.cause)
	}
	if r.snapshot.config.AccessLog && r.status != 0 { // 0: it only asked whether to send its body
		r.logAccess(took)
	}
	r.releaseStruct()
}

// panicked notes that the newest attempt, if it is still under way, cannot go on.
func (r *request) panicked() {
	if n := len(r.attempts); n > 0 && r.attempts[n-1].entered {
		a := &r.attempts[n-1]
		a.took, a.failed, a.cause = time.Since(a.began), true, pool.GatewayFailed
	}
}

// replied ends the exchange: its answer is complete, or of no use any more.
func (r *request) replied() {
	r.conn.release()
	r.exchange.Finish()
	r.leave()
}

// logAccess writes the access line. Nothing of a body and no secret is in it.
func (r *request) logAccess(took time.Duration) {
	attrs := []slog.Attr{
		slog.String("request_id", string(r.id)),
		slog.Int("status", r.status),
		slog.Duration("took", took),
		slog.Bool("stream", r.stream),
	}
	if r.route != nil {
		attrs = append(attrs, slog.String("path", r.route.path))
	}
	if r.key != nil {
		attrs = append(attrs, slog.String("key", r.key.Spec().ID))
	}
	if len(r.models) > 0 {
		attrs = append(attrs, slog.String("model", r.models[0].Name))
	}
	if len(r.attempts) > 0 {
		attrs = append(attrs, slog.String("trail", string(r.trail())))
	}
	if r.failure != nil {
		attrs = append(attrs, slog.String("code", kindTable[r.failure.kind].code))
	}
	r.proxy.log.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}
