package proxy

import (
	"io"
	"strconv"
	"time"

	"sluice/client"
	"sluice/jsontext"
)

// copyHead makes the upstream's status and headers the client's and adds the gateway's own.
// The attempt is over as far as the trail goes.
func (r *request) copyHead(a *attempt) {
	now := time.Now()
	if !a.failed { // an HTTP error has been noted before
		a.took = now.Sub(a.began)
	}
	r.headAfter = max(1, now.Sub(r.began)) // 0 is "none"
	from, resp := &r.exchange.Response, &r.ctx.Response
	r.status = a.status
	resp.SetStatusCode(a.status)
	for name, value := range from.All() {
		if !responseDrops.has(name) && !r.answerHops.have(name) {
			resp.Header.AddBytesKV(name, value)
		}
	}
	r.setOwnHeaders()
}

// appendMember appends the member that says who answered, without braces around it:
// "gateway":{…}.
func (r *request) appendMember(dst []byte) []byte {
	dst = append(dst, r.attempts[len(r.attempts)-1].target.Member...)
	dst = strconv.AppendInt(dst, int64(len(r.attempts)), 10)
	if len(r.attempts) > 1 {
		dst = r.appendFailed(append(dst, `,"failed":`...))
	}
	return append(dst, '}')
}

// appendFailed lists the attempts before the newest.
func (r *request) appendFailed(dst []byte) []byte {
	dst = append(dst, '[')
	for i := range r.attempts[:len(r.attempts)-1] {
		f := &r.attempts[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		dst = jsontext.AppendString(jsontext.AppendName(dst, "model"), f.target.Model)
		dst = jsontext.AppendString(jsontext.AppendName(dst, "upstream"), f.target.Upstream.Name)
		dst = jsontext.AppendName(dst, "status")
		if f.status == 0 {
			dst = append(dst, "null"...)
		} else {
			dst = strconv.AppendInt(dst, int64(f.status), 10)
		}
		dst = jsontext.AppendString(jsontext.AppendName(dst, "error"), f.cause.String())
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// reply makes an attempt's answer the client's. Nothing else writes one.
func (r *request) reply(a *attempt, ans *answer) {
	switch {
	case ans.form == streaming:
		r.replyStream(a, ans.stream)
	case a.failed && !ans.told && r.isForeign(ans.body, ans.form == complete):
		r.replyForeign(a)
	case ans.form == passing:
		r.replyAsItComes(a, ans.body, ans.added)
	default:
		if a.status/100 == 2 {
			r.tokens.answered, r.tokens.whole = true, true
		}
		r.copyHead(a)
		r.replied()
		r.answerWith(ans.body)
	}
}

// answerWith has body be the client's. From a shared buffer it is handed over, so that the request
// keeps its places, and the memory counts, until the client has taken it.
func (r *request) answerWith(body []byte) {
	if r.shared == nil {
		r.ctx.Response.SwapBody(body)
		return
	}
	r.passOver(&passage{r: r, end: io.EOF}, body, len(body))
}

// replyAsItComes hands the answer over to a body that is read while it is sent. It begins with prefix, of
// which added bytes are the gateway's.
func (r *request) replyAsItComes(a *attempt, prefix []byte, added int) {
	size := -1
	if length := r.exchange.Response.ContentLength(); length >= 0 {
		size = length + added
	}
	p := &passage{r: r, came: int64(len(prefix) - added)}
	if !a.failed && a.status/100 == 2 {
		r.tokens.answered = true
		if r.inspection = r.inspect(prefix); r.inspection != nil {
			r.inspection.see(prefix)
		}
	}
	r.copyHead(a)
	r.answered()
	r.passOver(p, prefix, size)
}

// passOver hands r over to p, which begins with prefix and goes on with what is left of
// the exchange, unless that has ended.
func (r *request) passOver(p *passage, prefix []byte, size int) {
	if size < 0 {
		r.markEnd()
	}
	p.prefix, p.straight, p.client = prefix, size >= 0 || r.conn.Bare(), client.Pace{Conn: r.conn}
	r.ctx.Response.ImmediateHeaderFlush = true
	r.ctx.Response.SetBodyStream(p, size)
	r.handOver()
}

// markEnd has the connection end with an answer of unknown length where the client does not know
// chunks, and would find no other end.
func (r *request) markEnd() {
	if !r.ctx.Request.Header.IsHTTP11() {
		r.ctx.SetConnectionClose()
		r.conn.MakeBare()
	}
}

// handOver ends the handler's ownership of r: whoever writes the body finishes it. What
// the request's body took is given back, for that may be long after.
func (r *request) handOver() {
	r.conn.HandOver()
	r.ctx = nil
	r.exchange.Head, r.exchange.Body, r.fields.model = nil, nil, nil
	clear(r.upstream[:cap(r.upstream)])
	if cap(r.body) > keepWhileAnswering {
		r.proxy.giveBack(r.body)
		r.body = nil
		r.giveMemory(&r.bodyMemory)
	}
}

// keepWhileAnswering is how much of a request may stay in memory while its answer is under
// way.
const keepWhileAnswering = 4 << 10
