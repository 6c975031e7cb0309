package proxy

import (
	"io"
	"sync"

	"github.com/valyala/fasthttp"

	"sluice/client"
	"sluice/pool"
)

// passage is the body of an answer that passes through. When the upstream breaks off, the
// server gets the error and closes the client's connection without ending the body.
type passage struct {
	r        *request
	prefix   []byte // in r's buffer
	straight bool   // goes out as it is: its length is announced, or its end is the connection's
	end      error  // what a read from the upstream returns when nothing more comes; nil before
	left     bool   // the client has not taken what was written
	client   client.Pace
	came     int64 // bytes of an answer that comes while it is sent
}

func (p *passage) Read(b []byte) (n int, err error) {
	defer p.recovered(&err)
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.r.bytesOut += int64(n)
		if p.prefix = p.prefix[n:]; len(p.prefix) == 0 {
			p.r.dropAnswer()
		}
		return n, nil
	}
	n, err = p.read(b)
	p.r.bytesOut += int64(n)
	return n, err
}

// recovered makes of a panic the end of the body. The server would do that, without a word.
func (p *passage) recovered(err *error) {
	v := recover()
	if v == nil {
		return
	}
	r := p.r
	r.proxy.panicked("panic in an answer", v)
	r.failure = refusal(internal, "", "the gateway failed; the answer is incomplete")
	r.giveUp()
	r.exchange.Abort(pool.GatewayFailed)
	p.end, *err = errPanic, errPanic
}

// read reads what the upstream still sends.
func (p *passage) read(b []byte) (int, error) {
	if p.end != nil {
		return 0, p.end
	}
	n, err := p.r.exchange.Read(b)
	p.came += int64(n)
	err = p.look(b[:n], err)
	p.end = err // the server asks again after an error that came with bytes
	if err != nil && err != io.EOF && p.r.failure == nil {
		p.r.brokeOff(err)
	}
	return n, err
}

// look inspects what has been read, and returns the error of the reading, or that of an end which is none.
func (p *passage) look(b []byte, err error) error {
	i := p.r.inspection
	if i != nil {
		i.see(b)
	}
	if err != io.EOF {
		return err
	}
	if i != nil {
		if unended := i.end(); unended != nil {
			return unended
		}
	}
	p.r.tokens.whole = i == nil || i.whole()
	return err
}

// SupportsBodyWriteTo has the server call WriteTo for a body without chunks: its own way would
// gather such a body in a buffer until that is full.
func (p *passage) SupportsBodyWriteTo() bool { return p.straight }

// WriteTo writes the body to the client's connection as it comes. The server's writer for
// it is passed over: the head has been flushed, so that it is empty.
func (p *passage) WriteTo(io.Writer) (total int64, err error) {
	defer p.recovered(&err)
	defer func() { p.r.bytesOut += total }()
	p.client.Start()
	n, err := p.client.Write(p.prefix)
	p.client.Stop()
	total, p.prefix = int64(n), nil
	p.r.dropAnswer()
	if err != nil || p.end == io.EOF {
		p.left = err != nil
		return total, err
	}
	buf := passageBuffers.Get().(*[16 << 10]byte)
	defer passageBuffers.Put(buf)
	for {
		n, rerr := p.read(buf[:])
		if n > 0 {
			n, err = p.client.Write(buf[:n])
			total += int64(n)
		}
		switch {
		case err != nil:
			p.left = true
			return total, err
		case rerr == io.EOF:
			return total, nil
		case rerr != nil:
			return total, rerr
		}
	}
}

var passageBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// Close is called by the server when the body is sent, or cannot be.
func (p *passage) Close() error {
	r := p.r
	if r == nil {
		return nil
	}
	p.r = nil
	if p.end == nil && r.exchange.Abort(pool.ClientLeft) { // else it was noticed elsewhere, and counted
		r.proxy.metrics.CancelledUpstreams.Inc()
		r.left = true
	}
	r.left = r.left || p.left || r.conn.Broken() != nil
	r.guess(r.inspection, p.came)
	r.finish()
	return nil
}

// brokeOff notes that an answer broke off after its head had gone out.
func (r *request) brokeOff(err error) {
	r.failure = r.fail(&r.attempts[len(r.attempts)-1], readError(err))
}

var (
	_ io.ReadCloser         = (*passage)(nil)
	_ fasthttp.BodyWriterTo = (*passage)(nil)
)
