// Package record has what is told of a request when it is over: one plain value, made once, from which
// the access log, the last errors and the newest requests are made. Nothing of a body is in it.
package record

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"sluice/jsontext"
)

// Request is what is told of a request that is over. Its texts and its attempts are the teller's
// again when Tell has returned.
type Request struct {
	Began time.Time
	// Took is until the last byte, FirstByte until the answer's head, 0 without one.
	Took, FirstByte time.Duration
	// Overhead is the gateway's own part, up to the answer's head.
	Overhead time.Duration
	Status   int
	Error    string // the kind; "" for a whole answer with a status of success
	Stream   bool

	ID, UpstreamID string
	Method, Path   string
	// Client is the client's address. Its port is 0 where a proxy in front told the address.
	Client netip.AddrPort

	Key, KeyName    string // id and name; "" without a key
	Model, Upstream string // who answered, or was asked last

	BytesIn, BytesOut   int64
	TokensIn, TokensOut int64
	HasTokens           bool // the upstream told them

	// Message is what the client was told, and Cause what the log was told besides.
	Message, Cause string

	Attempts []Attempt
	// Tried is how many attempts there were. A Ring keeps the last few.
	Tried int
}

// Attempt is one try at one target.
type Attempt struct {
	Model, Upstream, Target string
	Status                  int    // 0 without one
	Cause                   string // why it failed, "" if it did not
	// ShowsStatus: the trail has the status rather than the cause.
	ShowsStatus bool
	// Ended: it was ended from the client's side or by the gateway, and says nothing of the upstream.
	Ended bool
	// After is when it began, since the request's head had arrived. Connect is what a new connection
	// took, 0 for one that was there. Took is until the answer's head, or until it failed.
	After, Connect, Took time.Duration
}

// MaxTrail bounds a trail. The oldest attempts are left out of one that would be longer.
const MaxTrail = 2 << 10

// AppendTrail appends the attempt to a trail, as x-sluice-trail has it.
func (a *Attempt) AppendTrail(b []byte) []byte {
	b = a.append(b)
	for len(b) > MaxTrail {
		b = b[:copy(b, b[bytes.IndexByte(b, ',')+1:])]
	}
	return b
}

func (a *Attempt) append(b []byte) []byte {
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, a.Model...)
	b = append(b, '@')
	b = append(b, a.Upstream...)
	b = append(b, ';')
	if a.ShowsStatus {
		b = strconv.AppendInt(b, int64(a.Status), 10)
	} else {
		b = append(b, a.Cause...)
	}
	b = append(b, ';')
	return strconv.AppendInt(b, a.Took.Milliseconds(), 10)
}

// trail is that of the attempts that there are.
func (r *Request) trail() string {
	var room [256]byte
	b := room[:0]
	for i := range r.Attempts {
		b = r.Attempts[i].AppendTrail(b)
	}
	return string(b)
}

// line is a JSON object in the making.
type line []byte

func (l *line) text(name, value string) {
	*l = jsontext.AppendString(jsontext.AppendName(*l, name), value)
}

// known is text for a value that may be absent.
func (l *line) known(name, value string) {
	if value != "" {
		l.text(name, value)
	}
}

func (l *line) whole(name string, n int64) {
	*l = strconv.AppendInt(jsontext.AppendName(*l, name), n, 10)
}

func (l *line) seconds(name string, d time.Duration) {
	*l = strconv.AppendFloat(jsontext.AppendName(*l, name), d.Round(time.Microsecond).Seconds(), 'f', -1, 64)
}

func (l *line) yes(name string) { *l = append(jsontext.AppendName(*l, name), "true"...) }

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// members are what the access log says of a request.
func (l *line) members(r *Request) {
	l.text("request_id", r.ID)
	l.known("client", r.client())
	l.whole("status", int64(r.Status))
	if r.Path != "" {
		l.text("method", r.Method)
		l.text("path", r.Path)
	}
	l.known("key", r.Key)
	l.known("model", r.Model)
	if r.Tried > 0 {
		l.text("upstream", r.Upstream)
		l.text("trail", r.trail())
		l.known("upstream_request_id", r.UpstreamID)
	}
	if r.Stream {
		l.yes("stream")
	}
	l.whole("bytes_in", r.BytesIn)
	l.whole("bytes_out", r.BytesOut)
	if r.HasTokens {
		l.whole("tokens_in", r.TokensIn)
		l.whole("tokens_out", r.TokensOut)
	}
	if r.FirstByte > 0 {
		l.seconds("first_byte", r.FirstByte)
	}
	l.seconds("total", r.Took)
	l.seconds("overhead", r.Overhead)
	l.known("error", r.Error)
}

func (r *Request) client() string {
	switch {
	case !r.Client.IsValid():
		return ""
	case r.Client.Port() == 0:
		return r.Client.Addr().String()
	}
	return r.Client.String()
}

// appendLine appends the access log's line, without its end.
func appendLine(dst []byte, r *Request) []byte {
	l := line(append(dst, '{'))
	l.text("time", r.Began.Format(timeFormat))
	l.text("level", "INFO")
	l.text("msg", "request")
	l.members(r)
	return append(l, '}')
}
