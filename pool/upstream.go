// Package pool is the gateway's upstream side: a fasthttp.HostClient for each upstream,
// connections with their deadlines, the choice among a model's targets, and one exchange
// of request and answer. What travels in them is the caller's business.
package pool

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/config"
	"sluice/limiter"
	"sluice/metrics"
)

const (
	// idleConnection is how long an unused connection is kept: a little less than the
	// minute after which many servers and load balancers close theirs.
	idleConnection = 55 * time.Second
	// readBuffer is what an answer's head is read into. A longer head gets a larger one.
	readBuffer  = 16 << 10
	writeBuffer = 16 << 10
)

// Dial opens a TCP connection; tests put their own in.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Upstream is one provider: its connections and what is known of its health. It lives
// on through reloads that leave its address, proxy and ca alone.
type Upstream struct {
	Name string
	// Address is scheme://host:port.
	Address string
	route   string // see routeOf

	clock   func() time.Duration
	log     *slog.Logger
	client  *fasthttp.HostClient
	links   linker
	names   *names // of the host that connections go to
	way     way
	roster  roster
	maxAge  atomic.Int64 // connections.max_age
	silence time.Duration
	tls     *tls.Config // nil for http
	retired atomic.Bool
	asked   atomic.Bool // once one of its targets is
	drained *atomic.Bool

	budget budget
	queue  limiter.Queue
	took   atomic.Int64 // how long an attempt keeps its place in it, a moving average; 0: not known

	mu      sync.Mutex
	targets map[healthKey]*health

	inFlight atomic.Int64
	requests atomic.Int64
	failures atomic.Int64
	last     atomic.Pointer[Failure]
	causes   [causes]interface{ Inc() }
	retries  interface{ Inc() }
	refused  interface{ Inc() } // retries past the budget
}

// Failure is an attempt that failed.
type Failure struct {
	At    time.Time `json:"at"`
	Cause string    `json:"cause"`
}

// Status is what is shown of an Upstream.
type Status struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	InFlight    int64  `json:"in_flight"`
	MaxInFlight int64  `json:"max_in_flight"` // 0: no limit
	Places      int64  `json:"-"`             // taken, of that limit
	Waiting     int64  `json:"waiting"`
	Connections int    `json:"connections"`
	Idle        int    `json:"idle_connections"`
	Drained     bool   `json:"drained"` // as a whole
	// Addresses are those of its host, or of its proxy's, by address.
	Addresses   []AddressStatus `json:"addresses"`
	Requests    int64           `json:"requests"`
	Failures    int64           `json:"failures"`
	LastFailure *Failure        `json:"last_failure"`
	// Retries are those of the last ten seconds, and RetriesAllowed what their budget is now.
	Retries        int            `json:"retries"`
	RetriesAllowed int            `json:"retries_allowed"`
	Targets        []TargetStatus `json:"targets"`
}

func addressOf(u *config.Upstream) string {
	return u.BaseURL.Scheme + "://" + hostPort(&u.BaseURL.URL)
}

// routeOf is what an upstream's connections depend on. It is not shown: the proxy's credentials are
// in it.
func routeOf(u *config.Upstream) string {
	_, ca := u.Roots()
	return addressOf(u) + "\n" + u.Proxy.URL.URL.String() + "\n" + string(ca)
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (p *Pool) newUpstream(name string, c *config.Upstream, maxAge time.Duration, series metrics.Upstream) *Upstream {
	u := &Upstream{
		Name: name, Address: addressOf(c), route: routeOf(c), silence: Silence, clock: p.clock, log: p.log,
		targets: map[healthKey]*health{}, retries: series.Retries(), refused: series.RetriesRefused(),
		drained: p.drainSwitch(drainKey{upstream: name}),
	}
	roots, _ := c.Roots()
	secure := func(to *url.URL) *tls.Config {
		return &tls.Config{
			ServerName: to.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(64), RootCAs: roots,
		}
	}
	if c.BaseURL.Scheme == "https" {
		u.tls = secure(&c.BaseURL.URL)
	}
	u.maxAge.Store(int64(maxAge)) // as for the queue below
	reach := func(to *url.URL) *names {
		return newNames(hostPort(to), p.lookup, p.dial, p.log.With("upstream", name), u.sweep)
	}
	if by := &c.Proxy.URL.URL; by.Host != "" {
		u.names = reach(by)
		u.way = through(by, secure(by), u.names)
	} else {
		u.names = reach(&c.BaseURL.URL)
		u.way = straight(u.names)
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
	u.queue.SetLimit(int64(c.MaxInFlight)) // requests may come before Adopt
	u.links = newLinks(u.client)
	for c := range u.causes {
		if c := Cause(c); !c.Ended() { // which is no failure of the upstream's
			u.causes[c] = series.Failures(c.String())
		}
	}
	return u
}

// connect opens a connection, TLS handshake included, within timeout.
func (u *Upstream) connect(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := u.way(ctx, address)
	if err != nil {
		return nil, err
	}
	NoticeSilence(conn, u.silence)
	if u.tls == nil {
		u.roster.add(rawConn(conn).(*watched), conn)
		return conn, nil
	}
	secure := tlsOver(conn, u.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &handshakeError{err}
	}
	u.roster.add(rawConn(secure).(*watched), secure)
	return secure, nil
}

// sweep closes idle connections that are not to be used any more.
func (u *Upstream) sweep() { u.roster.sweep(time.Duration(u.maxAge.Load())) }

type handshakeError struct{ error }

func (e *handshakeError) Unwrap() error { return e.error }

// retire ends the upstream: idle connections close now, the others when their requests end.
func (u *Upstream) retire() {
	u.retired.Store(true)
	u.client.CloseIdleConnections()
}

// Failed counts an attempt that failed, for a cause that is not Ended.
func (u *Upstream) Failed(c Cause) {
	u.failures.Add(1)
	u.last.Store(&Failure{At: time.Now().UTC(), Cause: c.String()})
	u.causes[c].Inc()
}

// LastFailure is the newest, nil without one.
func (u *Upstream) LastFailure() *Failure { return u.last.Load() }

// Status is what can be shown of the upstream now.
func (u *Upstream) Status() Status {
	s := Status{
		Name: u.Name, Address: u.Address, InFlight: u.inFlight.Load(),
		MaxInFlight: u.queue.Limit(), Places: u.queue.InFlight(), Waiting: u.queue.Waiting(),
		Drained: u.drained.Load(), Requests: u.requests.Load(), Failures: u.failures.Load(), LastFailure: u.last.Load(),
		Targets: []TargetStatus{},
	}
	var known []*address
	if all := u.names.known.Load(); all != nil {
		known = *all
	}
	s.Addresses, s.Connections, s.Idle = u.roster.status(known)
	now := u.clock()
	s.Retries, s.RetriesAllowed = u.budget.state(now)
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, h := range u.targets {
		s.Targets = append(s.Targets, h.status(key, now, s.Drained))
	}
	slices.SortFunc(s.Targets, func(a, b TargetStatus) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), strings.Compare(a.Target, b.Target))
	})
	return s
}

// healthOf is what is known of a target, from now on kept.
func (u *Upstream) healthOf(key healthKey, drained *atomic.Bool) *health {
	u.mu.Lock()
	defer u.mu.Unlock()
	h := u.targets[key]
	if h == nil {
		h = &health{drained: drained}
		u.targets[key] = h
	}
	return h
}

// forget drops what is known of targets that are not used.
func (u *Upstream) forget(used map[*health]bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.targets, func(_ healthKey, h *health) bool { return !used[h] })
}

// turned says that the breaker of t has opened or closed.
func (u *Upstream) turned(t *Target, s BreakerState) {
	u.log.Warn("breaker "+s.String(), "model", t.Model, "upstream", u.Name, "target", t.name)
}

// credentialTurned says that t rests since it refuses the credential, or accepts it again.
func (u *Upstream) credentialTurned(t *Target, s BreakerState) {
	says := "credential accepted"
	if s == Open {
		says = "credential refused"
	}
	u.log.Warn(says, "model", t.Model, "upstream", u.Name, "target", t.name)
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
