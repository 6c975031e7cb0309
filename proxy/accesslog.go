package proxy

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/jsontext"
)

// accessLog takes the lines of requests that have ended and writes them from a goroutine of its own. A
// request waits for nobody: a line that finds no room, or cannot be written, is dropped and counted.
// The lines wait in several places, so that requests do not wait for each other either.
type accessLog struct {
	out     io.Writer
	dropped func(lines int)
	places  [16]linePlace
	full    chan struct{} // a place is half full
	stop    chan struct{}
	done    chan struct{}

	mu               sync.Mutex
	started, stopped bool
}

type linePlace struct {
	mu     sync.Mutex
	lines  []byte
	closed bool     // nobody will write what is added
	_      [64]byte // places next to each other share no cache line
}

const (
	placeBytes = 256 << 10
	// writeLines is how long a line waits at most.
	writeLines = 200 * time.Millisecond
)

func newAccessLog(out io.Writer, dropped func(lines int)) *accessLog {
	return &accessLog{out: out, dropped: dropped, full: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// start has lines be written. It may be called again, and after close does nothing.
func (l *accessLog) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started && !l.stopped {
		l.started = true
		go l.run()
	}
}

// add takes a line, which ends in LF and is the caller's again afterwards.
func (l *accessLog) add(line []byte) {
	p := &l.places[rand.Uint32()%uint32(len(l.places))]
	p.mu.Lock()
	before := len(p.lines)
	fits := !p.closed && before+len(line) <= placeBytes
	if fits {
		p.lines = append(p.lines, line...)
	}
	p.mu.Unlock()
	switch {
	case !fits:
		l.dropped(1)
	case before < placeBytes/2 && before+len(line) >= placeBytes/2:
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

func (l *accessLog) run() {
	defer close(l.done)
	tick := time.NewTicker(writeLines)
	defer tick.Stop()
	var spare []byte
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-l.full:
		case <-l.stop:
			last = true
		}
		for i := range l.places {
			p := &l.places[i]
			p.mu.Lock()
			spare, p.lines, p.closed = p.lines, spare[:0], last
			p.mu.Unlock()
			l.write(spare)
		}
	}
}

// write writes lines in pieces that a pipe takes whole (PIPE_BUF): while one process takes over
// from another both write to the same.
func (l *accessLog) write(lines []byte) {
	const most = 4096
	for len(lines) > 0 {
		n := min(len(lines), most)
		if end := bytes.LastIndexByte(lines[:n], '\n'); end >= 0 {
			n = end + 1
		} else {
			n = bytes.IndexByte(lines, '\n') + 1 // a longer line
		}
		if written, err := l.out.Write(lines[:n]); err != nil {
			l.dropped(bytes.Count(lines[written:n], []byte{'\n'}))
		}
		lines = lines[n:]
	}
}

// close writes what there is and ends. A line that is added after it is dropped, and counted.
func (l *accessLog) close() {
	l.mu.Lock()
	first := !l.stopped
	l.stopped = true
	started := l.started
	l.mu.Unlock()
	if !started {
		return
	}
	if first {
		close(l.stop)
	}
	<-l.done
}

// record writes the request's line to the access log, and keeps it among the last errors if it is
// one.
func (r *request) record(took time.Duration, kind string) {
	if r.probe {
		return
	}
	rate := float64(r.snapshot.config.AccessLog)
	logged := rate == 1 || rate > 0 && rand.Float64() < rate
	f := r.proxy.faults[kind] // nil for none
	kept := f != nil && f.wants(r.proxy.clock())
	if !logged && !kept {
		return
	}
	r.line = r.appendLine(r.line[:0], took, kind)
	if kept {
		f.keep(bytes.Clone(r.line), r.failure)
	}
	if logged {
		r.line = append(r.line, '\n')
		r.proxy.access.add(r.line)
	}
}

// appendLine appends what is recorded of the request, a JSON object. Nothing of a body and no secret is
// in it.
func (r *request) appendLine(dst []byte, took time.Duration, kind string) []byte {
	text := func(name, value string) { dst = jsontext.AppendString(jsontext.AppendName(dst, name), value) }
	whole := func(name string, n int64) { dst = strconv.AppendInt(jsontext.AppendName(dst, name), n, 10) }
	seconds := func(name string, d time.Duration) {
		dst = strconv.AppendFloat(jsontext.AppendName(dst, name), d.Round(time.Microsecond).Seconds(), 'f', -1, 64)
	}
	dst = append(dst, '{')
	text("time", r.began.Format("2006-01-02T15:04:05.000Z07:00"))
	text("level", "INFO")
	text("msg", "request")
	text("request_id", borrowString(r.id))
	if r.from.IsValid() {
		text("client", r.from.String())
	} else {
		text("client", r.conn.RemoteAddr().String())
	}
	whole("status", int64(r.status))
	if len(r.path) > 0 {
		text("method", borrowString(r.method))
		text("path", borrowString(r.path))
	}
	if r.key != nil {
		text("key", r.key.Spec().ID)
	}
	if n := len(r.attempts); n > 0 {
		text("model", r.attempts[n-1].target.Model)
		text("upstream", r.attempts[n-1].target.Upstream.Name)
		text("trail", borrowString(r.trail()))
		if len(r.upstreamID) > 0 {
			text("upstream_request_id", borrowString(r.upstreamID))
		}
	} else if len(r.models) > 0 {
		text("model", r.models[0].Name)
	}
	if r.stream {
		dst = append(jsontext.AppendName(dst, "stream"), "true"...)
	}
	whole("bytes_in", r.bytesIn)
	whole("bytes_out", r.bytesOut)
	if u := r.tokens.usage; u.known() {
		whole("tokens_in", u.input)
		whole("tokens_out", u.output)
	}
	if r.headAfter > 0 {
		seconds("first_byte", r.headAfter)
	}
	seconds("total", took)
	seconds("overhead", r.overhead(took))
	if kind != "" {
		text("error", kind)
	}
	return append(dst, '}')
}

// overhead is the gateway's own part of the time up to the answer's head: what is left without the
// attempts, the waits between them and for a turn, and the client's sending of its body.
func (r *request) overhead(took time.Duration) time.Duration {
	own := took
	if r.headAfter > 0 {
		own = r.headAfter
	}
	for i := range r.attempts {
		own -= r.attempts[i].took
	}
	return max(0, own-r.waited)
}

// The faults that are no failure of the gateway's own table.
const (
	faultLeft     = "caller_left"
	faultRejected = "caller_rejected"
	faultStatus   = "upstream_status"
)

// errorKind says whose fault it is that a request did not get a whole answer with a status of
// success, and what it was; "" for one that did.
func (r *request) errorKind() string {
	n := len(r.attempts)
	switch f := r.failure; {
	case f != nil && f.left:
		return faultLeft
	case f != nil && !f.ownStatus:
		return kindTable[f.kind].fault
	case n == 0:
		return ""
	case r.attempts[n-1].status == fasthttp.StatusNotModified: // which the client has asked for
	case r.attempts[n-1].status/100 == 4 && !retryable(r.attempts[n-1].status):
		return faultRejected
	case r.attempts[n-1].status/100 != 2:
		return faultStatus
	case r.left:
		return faultLeft
	}
	return ""
}
