// Package pool is the gateway's upstream side: a fasthttp.HostClient for each upstream,
// connections with their deadlines, the choice among a model's targets, and one exchange
// of request and answer. What travels in them is the caller's business.
package pool

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/config"
	"sluice/metrics"
)

const (
	// idleConnection is how long an unused connection is kept: a little less than the
	// minute after which many servers and load balancers close theirs.
	idleConnection = 55 * time.Second
	// readBuffer is also the longest head an answer may have.
	readBuffer  = 16 << 10
	writeBuffer = 16 << 10
)

// Dial opens a TCP connection; tests put their own in.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Upstream is one provider: its connections and what is known of its health. It lives
// on through reloads that leave its address alone.
type Upstream struct {
	Name string
	// Address is scheme://host:port.
	Address string

	client  *fasthttp.HostClient
	links   linker
	dial    Dial
	tls     *tls.Config // nil for http
	retired atomic.Bool

	inFlight atomic.Int64
	requests atomic.Int64
	failures atomic.Int64
	last     atomic.Pointer[Failure]
	causes   [causes]interface{ Inc() }
}

// Failure is an attempt that failed.
type Failure struct {
	At    time.Time `json:"at"`
	Cause string    `json:"cause"`
}

// Status is what is shown of an Upstream.
type Status struct {
	Name        string   `json:"name"`
	Address     string   `json:"address"`
	InFlight    int64    `json:"in_flight"`
	Connections int      `json:"connections"`
	Idle        int      `json:"idle_connections"`
	Requests    int64    `json:"requests"`
	Failures    int64    `json:"failures"`
	LastFailure *Failure `json:"last_failure"`
}

func addressOf(u *config.Upstream) string {
	return u.BaseURL.Scheme + "://" + hostPort(&u.BaseURL.URL)
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func newUpstream(name string, c *config.Upstream, dial Dial, m *metrics.Metrics) *Upstream {
	u := &Upstream{Name: name, Address: addressOf(c), dial: dial}
	if c.BaseURL.Scheme == "https" {
		u.tls = &tls.Config{
			ServerName: c.BaseURL.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(64),
		}
	}
	u.client = &fasthttp.HostClient{
		Addr:                hostPort(&c.BaseURL.URL),
		IsTLS:               u.tls != nil,
		DialTimeout:         u.connect,
		MaxConns:            1 << 30, // what is in flight is bounded where requests come in
		MaxIdleConnDuration: idleConnection,
		ReadBufferSize:      readBuffer,
		WriteBufferSize:     writeBuffer,
		ConnPoolStrategy:    fasthttp.LIFO, // few warm connections rather than many cold ones
	}
	u.links = newLinks(u.client)
	for c := range u.causes {
		u.causes[c] = m.Failure(name, Cause(c).String())
	}
	return u
}

// connect opens a connection, TLS handshake included, within timeout.
func (u *Upstream) connect(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := u.dial(ctx, "tcp", address)
	if err != nil || u.tls == nil {
		return conn, err
	}
	secure := tls.Client(conn, u.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &handshakeError{err}
	}
	return secure, nil
}

type handshakeError struct{ error }

func (e *handshakeError) Unwrap() error { return e.error }

// retire ends the upstream: idle connections close now, the others when their requests end.
func (u *Upstream) retire() {
	u.retired.Store(true)
	u.client.CloseIdleConnections()
}

// Failed counts an attempt that failed.
func (u *Upstream) Failed(c Cause) {
	u.failures.Add(1)
	u.last.Store(&Failure{At: time.Now().UTC(), Cause: c.String()})
	u.causes[c].Inc()
}

// Status is what can be shown of the upstream now.
func (u *Upstream) Status() Status {
	return Status{
		Name: u.Name, Address: u.Address, InFlight: u.inFlight.Load(),
		Connections: u.client.ConnsCount(), Idle: u.client.IdleConnsCount(),
		Requests: u.requests.Load(), Failures: u.failures.Load(), LastFailure: u.last.Load(),
	}
}

// A HostClient's connections are of a type that fasthttp does not export, so what holds
// one is generic over it, and linker hides that from everything else.

type linker interface {
	// acquire takes a pooled connection or dials one.
	acquire(dialTimeout time.Duration) (link, error)
}

type link interface {
	Conn() net.Conn
	// reused is false for a new connection.
	reused() bool
	// release pools or closes the connection. The link must not be used after it.
	release(keep bool)
}

type pooledConn interface {
	Conn() net.Conn
	LastUseTime() time.Time
}

type connPool[C pooledConn] interface {
	AcquireConn(dialTimeout time.Duration, connectionClose bool) (C, error)
	ReleaseConn(C)
	CloseConn(C)
}

type links[C pooledConn] struct {
	pool connPool[C]
	free sync.Pool
}

func newLinks[C pooledConn](pool connPool[C]) *links[C] {
	l := &links[C]{pool: pool}
	l.free.New = func() any { return &oneLink[C]{all: l} }
	return l
}

func (l *links[C]) acquire(dialTimeout time.Duration) (link, error) {
	c, err := l.pool.AcquireConn(dialTimeout, false)
	if err != nil {
		return nil, err
	}
	one := l.free.Get().(*oneLink[C])
	one.c = c
	return one, nil
}

type oneLink[C pooledConn] struct {
	all *links[C]
	c   C
}

func (o *oneLink[C]) Conn() net.Conn { return o.c.Conn() }

func (o *oneLink[C]) reused() bool { return !o.c.LastUseTime().IsZero() }

func (o *oneLink[C]) release(keep bool) {
	c := o.c
	var none C
	o.c = none
	if keep {
		o.all.pool.ReleaseConn(c)
	} else {
		o.all.pool.CloseConn(c)
	}
	o.all.free.Put(o)
}

// basic is the Authorization header for a URL's user info.
func basic(user *url.Userinfo) string {
	password, _ := user.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
}
