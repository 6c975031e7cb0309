package proxy

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fastjson"

	"sluice/client"
	"sluice/keys"
	"sluice/limiter"
	"sluice/metrics"
	"sluice/pool"
	"sluice/record"
)

// request is all that is known of one request. The connection's goroutine owns it until
// it is handed over to what writes the answer's body; finish, called by whoever owns it
// last, gives back all that was taken.
type request struct {
	proxy        *Proxy
	ctx          *fasthttp.RequestCtx // nil once handed over
	conn         *client.Conn
	snapshot     *snapshot
	route        *route // nil outside the proxied paths
	began        time.Time
	id           []byte
	method, path []byte     // as the client sent them, cut to maxLogged characters
	from         netip.Addr // by X-Forwarded-For; zero where the connection's address counts
	hops         hops       // of the client's head
	// of the head of the newest attempt's answer
	answerHops hops

	key       *keys.Key
	inGate    bool // has a place in limits.in_flight
	inKeyGate bool // and in the key's
	tokens    tokens

	reservation keys.Reservation // of the key's meters

	parser   fastjson.Parser // of the gateway object; its values live until its next use
	body     []byte          // as the client sent it
	bodyRead bool            // to its end
	// what it, and the answer, count for in limits.memory
	bodyMemory, answerMemory int64
	fields                   fields // of the body, that concern the gateway
	models                   []*pool.Model

	waiter     *limiter.Waiter // for its turn at a full upstream; nil if never needed
	chosen     chosen          // for the first attempt
	asked      *pool.Model     // the model of the attempts under way
	exchange   *pool.Exchange
	attempts   []attempt
	failed     *failure    // of the newest attempt, if it is not answered with
	kept       answer      // the newest attempt's HTTP error, should nothing else be tried
	inspection *inspection // of an answer that passes; nil without one
	upstreamID []byte      // of the newest attempt's answer; empty without one
	lastModel  bool        // no other model follows
	last       bool        // nor another try: the attempt under way is the last possible
	stream     bool        // the answer is one
	status     int
	failure    *failure // the gateway's own answer
	left       bool     // the client, before it had its whole answer
	probe      bool     // of health: the access log has none of them

	// for the access log
	bytesIn, bytesOut int64         // of bodies
	headAfter         time.Duration // since it began
	waited            time.Duration // for the client's body, between attempts, and for a turn

	told     record.Request
	steps    []record.Attempt
	line     []byte // of the access log
	shared   []byte // the buffer that the answer is in; nil while it fits into the connection's own
	scratch  []byte
	head     []byte   // of the upstream request
	upstream [][]byte // its body, in pieces
	options  []byte   // the stream_options in it, if they are not the client's
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
	empty  bool       // by an answer without choices
	// abandoned: the target was left for others, and is not asked again.
	abandoned bool

	entered    bool // has its place at the target
	place      pool.Place
	connect    time.Duration // what a new connection took; 0 without one
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
	clear(r.attempts)
	clear(r.models)
	clear(r.fields.models)
	clear(r.upstream[:cap(r.upstream)])
	r.hops.clear()
	r.answerHops.clear()
	r.reservation.Reset()
	if cap(r.body) > freeMemory {
		p.giveBack(r.body)
		r.body = nil
	}
	*r = request{
		parser:     r.parser,
		waiter:     r.waiter,
		id:         r.id[:0],
		method:     r.method[:0],
		path:       r.path[:0],
		hops:       r.hops,
		body:       r.body[:0],
		upstream:   r.upstream[:0],
		steps:      r.steps[:0],
		line:       r.line[:0],
		scratch:    reuse(r.scratch),
		upstreamID: r.upstreamID[:0],
		head:       r.head[:0],
		options:    r.options[:0],
		attempts:   r.attempts[:0],
		models:     r.models[:0],
		answerHops: r.answerHops,
		fields:     fields{models: r.fields.models[:0]},

		reservation: r.reservation,
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

// dialect is the error shape that the client reads.
func (r *request) dialect() dialect {
	if r.route != nil {
		return r.route.dialect
	}
	return dialectOf(r.ctx.Request.URI().PathOriginal()) // refused before its route was found, or by its method
}

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

// finish gives back what the request took, and then tells of it. It is called exactly once, by
// the request's last owner. A panic in it is this request's alone.
func (r *request) finish() {
	defer r.proxy.recovered("panic at the end of a request")
	if r.ctx != nil { // else whoever writes the body has counted
		r.bytesOut = int64(len(r.ctx.Response.Body()))
	}
	r.giveBack()
	r.tell()
	r.releaseStruct()
}

// giveBack gives back what the request took. What follows a panic in it is given back all the same.
func (r *request) giveBack() {
	if r.inGate {
		defer r.proxy.gate.Leave()
	}
	if r.inKeyGate {
		defer r.key.Gate.Leave()
	}
	defer r.dropAnswer()
	if r.inspection != nil {
		defer r.inspection.close()
	}
	defer r.giveMemory(&r.bodyMemory)
	defer r.settle()
	defer r.leave()
	if r.exchange != nil {
		r.replied()
		pool.Release(r.exchange)
		r.exchange = nil
	}
	if target := r.chosen.target; target != nil { // it was not admitted
		target.Back(r.proxy.clock(), r.chosen.place)
	}
}

// tell counts and records the request.
func (r *request) tell() {
	took := time.Since(r.began)
	if n := len(r.attempts); n > 0 {
		r.attempts[n-1].target.Metrics.Done(&metrics.Request{Status: r.status, Took: took,
			FirstByte: r.headAfter, Overhead: r.overhead(took), TokensIn: r.tokens.usage.input, TokensOut: r.tokens.usage.output})
	}
	kind := r.errorKind()
	if kind != "" {
		r.proxy.faults[kind].Inc()
	}
	if r.failure != nil && r.failure.cause != nil {
		r.proxy.log.Warn("request failed", "request_id", string(r.id), "code", kindTable[r.failure.kind].code,
			"trail", string(r.trail()), "error", r.failure.cause)
	}
	if r.status != 0 { // 0: it only asked whether to send its body
		r.record(took, kind)
	}
}

// giveUp notes that the gateway ends the newest attempt, if it is still under way, for a reason of its own.
func (r *request) giveUp() {
	if n := len(r.attempts); n > 0 && r.attempts[n-1].entered {
		a := &r.attempts[n-1]
		a.took, a.failed, a.cause = time.Since(a.began), true, pool.GatewayFailed
	}
}

// replied ends the exchange: its answer is complete, or of no use any more.
func (r *request) replied() {
	r.conn.Release()
	r.exchange.Finish()
	r.leave()
}
