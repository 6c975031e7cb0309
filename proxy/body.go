package proxy

import "io"

// firstRead is how much room a body gets before any of it that is not yet here.
const firstRead = 16 << 10

// readBody reads the whole body. Memory follows the bytes that arrive, not the length that
// was announced.
func (r *request) readBody() *failure {
	limit := int(r.snapshot.config.Limits.Body)
	announced := r.ctx.Request.Header.ContentLength()
	if announced > limit {
		return tooLarge(limit)
	}
	stream := r.ctx.RequestBodyStream()
	if stream == nil {
		r.bodyRead = true
		return nil
	}
	r.body = r.body[:0]
	for {
		if len(r.body) == cap(r.body) {
			room := max(firstRead, 4*cap(r.body))
			if announced >= 0 {
				room = min(room, announced+1) // one more, to see the end without growing
			}
			r.body = r.proxy.growBody(r.body, max(room, len(r.body)+1))
		}
		n, err := stream.Read(r.body[len(r.body):cap(r.body)])
		r.body = r.body[:len(r.body)+n]
		switch {
		case len(r.body) > limit:
			return tooLarge(limit)
		case err == io.EOF:
			r.bodyRead = true
			return nil
		case err != nil && isTimeout(err):
			return refusal(requestTimeout, "", "the body did not arrive within timeouts.client.body")
		case err != nil:
			return refusal(invalidRequest, "", "the body broke off, or its chunks are malformed")
		}
	}
}

func tooLarge(limit int) *failure {
	return refusal(bodyTooLarge, "", "the body is larger than %d bytes (limits.body)", limit)
}

// Large bodies are read into buffers that all requests share, so that the memory of one is
// the next one's, and the garbage collector's when there is none.

// growBody is b with room for capacity bytes.
func (p *Proxy) growBody(b []byte, capacity int) []byte {
	if capacity <= keepBuffer {
		return grow(b, capacity)
	}
	bigger, _ := p.bodies.Get().(*[]byte)
	if bigger == nil || cap(*bigger) < capacity {
		buf := make([]byte, 0, capacity)
		bigger = &buf
	}
	grown := append((*bigger)[:0], b...)
	p.giveBack(b)
	return grown
}

// giveBack takes a body's buffer that nobody uses any more. A small one is not kept here.
func (p *Proxy) giveBack(b []byte) {
	if cap(b) > keepBuffer {
		p.bodies.Put(&b)
	}
}
