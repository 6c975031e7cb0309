package proxy

import (
	"io"
	"math/bits"
	"runtime"
	"time"
)

// firstRead is how much room a body gets before any of it that is not yet here.
const firstRead = 16 << 10

// fairRead is how much of a body is read before other requests have their turn. Whoever sends
// fast could otherwise be read from for milliseconds on end, and hundreds of such keep a small request waiting
// for seconds.
const fairRead = 64 << 10

// readBody reads the whole body. Memory follows the bytes that arrive, not the length that
// was announced.
func (r *request) readBody() *failure {
	limit := int(r.snapshot.config.Limits.Body)
	announced := r.ctx.Request.Header.ContentLength()
	if announced > limit {
		return tooLarge(limit)
	}
	if announced > freeMemory {
		if !r.proxy.memory.Take(int64(announced)) {
			return r.outOfMemory()
		}
		r.conn.Promise(int64(announced))
		defer r.conn.Unpromise()
	}
	stream := r.ctx.RequestBodyStream()
	if stream == nil {
		r.bodyRead = true
		return nil
	}
	if announced < 0 {
		r.conn.CountChunks(int64(r.snapshot.config.Limits.Head))
		defer r.conn.StopCounting()
	}
	r.body = r.body[:0]
	var waiting time.Time // since when the client is
	defer func() {
		if !waiting.IsZero() {
			r.waited += time.Since(waiting)
		}
		r.bytesIn = int64(len(r.body))
	}()
	for {
		if len(r.body) == cap(r.body) {
			room := max(firstRead, 4*cap(r.body))
			if announced >= 0 {
				room = min(room, announced+1) // one more, to see the end without growing
			}
			if !r.growBody(max(room, len(r.body)+1)) {
				return r.outOfMemory()
			}
		}
		n, err := stream.Read(r.body[len(r.body):min(cap(r.body), len(r.body)+fairRead)])
		r.body = r.body[:len(r.body)+n]
		r.conn.Received(n)
		if n == fairRead {
			runtime.Gosched()
		}
		if err == nil && waiting.IsZero() {
			waiting = time.Now() // the rest is still to come
		}
		switch {
		case len(r.body) > limit:
			return tooLarge(limit)
		case err == io.EOF:
			r.bodyRead = true
			return nil
		case err != nil && isTimeout(err):
			return refusal(requestTimeout, "", "the body did not arrive within timeouts.client.body")
		case err != nil && r.conn.TooMuchFraming():
			return refusal(invalidRequest, "", "the chunks of the body have far more framing than data")
		case err != nil:
			return refusal(invalidRequest, "", "the body broke off, or its chunks are malformed")
		}
	}
}

// freeMemory is how much of each body counts for nothing, and half of what does of each answer.
const freeMemory = firstRead

// roomFor reports whether a body of n bytes may be begun.
func (p *Proxy) roomFor(n int64) bool {
	limit := p.memory.Limit()
	return limit == 0 || n <= limit-p.memory.InFlight()
}

// takeMemory has the bytes that r holds for its body grow to n. What was promised for it goes
// first.
func (r *request) takeMemory(n int) bool {
	more := int64(n) - r.bodyMemory
	if n <= freeMemory || more <= 0 {
		return true
	}
	promised := r.conn.TakePromised(more)
	if !r.proxy.memory.Take(more - promised) {
		r.proxy.memory.Give(promised)
		return false
	}
	r.bodyMemory += more
	return true
}

// holdAnswer has the bytes that r holds of its answer become n, and reports whether they may. Fewer
// than before always may. A fourth of limits.memory is left to what clients send: readers that take
// their time must not keep every new body out.
func (r *request) holdAnswer(n int) bool {
	limit := r.proxy.memory.Limit()
	return r.holdUpTo(n, limit-limit/4)
}

// holdEvent is holdAnswer for a stream's buffers. An event that is not held ends its stream, so that
// it may have the last of the memory.
func (r *request) holdEvent(n int) bool { return r.holdUpTo(n, r.proxy.memory.Limit()) }

// holdUpTo takes memory while no more than most is taken. What is not more than two free buffers counts for nothing.
func (r *request) holdUpTo(n int, most int64) bool {
	held := int64(n)
	if n <= 2*freeMemory {
		held = 0
	}
	m := &r.proxy.memory
	switch more := held - r.answerMemory; {
	case more < 0:
		m.Give(-more)
	case more > 0 && (m.Limit() > 0 && more > most-m.InFlight() || !m.Take(more)):
		return false
	}
	r.answerMemory = held
	return true
}

// growAnswer moves what is in buf, which is the answer so far, to a buffer of n bytes. Without room
// for that in limits.memory, buf comes back as it is.
func (r *request) growAnswer(buf []byte, n int) (bigger []byte, grown bool) {
	if n <= 2*freeMemory {
		return append(make([]byte, 0, n), buf...), true
	}
	before := int(r.answerMemory)
	if !r.holdAnswer(before + n) {
		return buf, false
	}
	bigger = r.proxy.bodyBuffer(n)
	if cap(bigger) > n && !r.holdAnswer(before+cap(bigger)) {
		bigger = make([]byte, 0, n)
	}
	bigger = append(bigger, buf...)
	r.proxy.giveBack(r.shared)
	r.shared = bigger
	r.holdAnswer(cap(bigger))
	return bigger, true
}

// dropAnswer gives back what the answer is held in.
func (r *request) dropAnswer() {
	r.proxy.giveBack(r.shared)
	r.shared = nil
	r.giveMemory(&r.answerMemory)
}

// growBody has r.body grow to at least n bytes of room.
func (r *request) growBody(n int) bool {
	bigger := r.proxy.bodyBuffer(n)
	if !r.takeMemory(cap(bigger)) {
		r.proxy.giveBack(bigger)
		return false
	}
	bigger = append(bigger, r.body...)
	r.proxy.giveBack(r.body)
	r.body = bigger
	return true
}

// giveMemory gives back what *held says.
func (r *request) giveMemory(held *int64) {
	if *held > 0 {
		r.proxy.memory.Give(*held)
		*held = 0
	}
}

func (r *request) outOfMemory() *failure {
	f := refusal(overloaded, "", "the gateway holds as many bytes of bodies as it may (limits.memory); try again")
	f.retryAfter = time.Second
	return f
}

func tooLarge(limit int) *failure {
	return refusal(bodyTooLarge, "", "the body is larger than %d bytes (limits.body)", limit)
}

// Large bodies are read into buffers that all requests share, so that the memory of one is
// the next one's, and the garbage collector's when there is none. They are kept by size, so that no
// body has a buffer of twice what it needs.

// bodyBuffer is an empty buffer with room for at least capacity bytes.
func (p *Proxy) bodyBuffer(capacity int) []byte {
	if capacity > freeMemory {
		if kept, _ := p.bodies[bits.Len(uint(capacity))].Get().(*[]byte); kept != nil && cap(*kept) >= capacity {
			return (*kept)[:0]
		}
	}
	return make([]byte, 0, capacity)
}

// giveBack takes a body's buffer that nobody uses any more. A small one is not kept here.
func (p *Proxy) giveBack(b []byte) {
	if cap(b) > freeMemory {
		kept := b // which is on the heap only here
		p.bodies[bits.Len(uint(cap(b)))].Put(&kept)
	}
}
