// Package config reads the gateway's one YAML file: strictly, over defaults, telling
// everything that is wrong with it at once, each with its line and column. What it
// returns is read-only.
package config

import (
	"cmp"
	"crypto/x509"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config is one file's content. Field names in the file are the json tags: the same
// names are shown by GET /api/config, where Secret and URL hide what is secret.
type Config struct {
	Listen   string         `json:"listen"`
	TLS      *TLS           `json:"tls,omitempty"`
	Admin    Admin          `json:"admin"`
	Keys     Keys           `json:"keys"`
	Limits   Limits         `json:"limits"`
	Timeouts ServerTimeouts `json:"timeouts"`
	// Connections holds for all upstreams that say nothing themselves.
	Connections Connections `json:"connections"`
	Retry       Retry       `json:"retry"`
	Breaker     Breaker     `json:"breaker"`
	AccessLog   Sampling    `json:"access_log"`
	Paths       []string    `json:"paths"`
	CORS        CORS        `json:"cors"`
	// TrustedProxies are the networks of the proxies in front of the gateway whose X-Forwarded-For is believed.
	TrustedProxies []string             `json:"trusted_proxies,omitempty"`
	Upstreams      map[string]*Upstream `json:"upstreams"`
	Models         map[string]*Model    `json:"models"`

	files    []string // that it was read from, besides the one file
	warnings []string
	trusted  []netip.Prefix
}

// CORS is which pages may use the gateway from a browser: "*" or origins such as
// https://app.example.
type CORS struct {
	Origins []string `json:"origins,omitempty"`
}

// Warnings are what the file may have and most likely should not, each with file, line and column.
func (c *Config) Warnings() []string { return c.warnings }

// Admin is the admin port.
type Admin struct {
	Listen string `json:"listen"`
	TLS    *TLS   `json:"tls,omitempty"`
	Token  Secret `json:"token"`
}

// Keys is where gateway keys are kept.
type Keys struct {
	Store Location `json:"store"`
	// WithoutStore is what holds of limits while a shared store does not answer: Share or Strict.
	WithoutStore string `json:"without_store"`
	// DefaultReservation is what a request that names no cap of its own on what is generated is
	// taken to use of its key's tokens until that is known.
	DefaultReservation int `json:"default_reservation"`
}

// The values of Keys.WithoutStore.
const (
	Share  = "share"  // each node admits its share
	Strict = "strict" // nothing is admitted until what other nodes have spent is forgotten
)

// Limits bound what one request and all requests together may take.
type Limits struct {
	Body     Size `json:"body"`
	Response Size `json:"response"`
	Head     Size `json:"head"`
	// UpstreamHead bounds the head of an upstream's answer.
	UpstreamHead Size `json:"upstream_head"`
	InFlight     int  `json:"in_flight"`
	Memory       Size `json:"memory,omitempty"` // for bodies that are held; 0 is a part of what there is
}

// Timeouts bound one request's dealings with upstreams. In an upstream and in a model
// a zero is "not said here".
type Timeouts struct {
	Connect         Duration `json:"connect,omitempty"`
	FirstByte       Duration `json:"first_byte,omitempty"`
	Response        Duration `json:"response,omitempty"`
	Total           Duration `json:"total,omitempty"`
	StreamIdle      Duration `json:"stream_idle,omitempty"`
	StreamKeepalive Duration `json:"stream_keepalive,omitempty"`
	StreamTotal     Duration `json:"stream_total,omitempty"`
}

// Over returns t with base's values where t says nothing.
func (t Timeouts) Over(base Timeouts) Timeouts {
	for _, f := range []struct{ t, base *Duration }{
		{&t.Connect, &base.Connect}, {&t.FirstByte, &base.FirstByte}, {&t.Response, &base.Response},
		{&t.Total, &base.Total}, {&t.StreamIdle, &base.StreamIdle},
		{&t.StreamKeepalive, &base.StreamKeepalive}, {&t.StreamTotal, &base.StreamTotal},
	} {
		if *f.t == 0 {
			*f.t = *f.base
		}
	}
	return t
}

// ServerTimeouts are the timeouts at the top of the file.
type ServerTimeouts struct {
	Timeouts
	Shutdown Duration       `json:"shutdown"`
	Client   ClientTimeouts `json:"client"`
}

// ClientTimeouts bound how slow a client may be.
type ClientTimeouts struct {
	Header Duration `json:"header"`
	Body   Duration `json:"body"`
	Idle   Duration `json:"idle"`
	Write  Duration `json:"write"`
}

// Connections is how connections to an upstream are kept. In an upstream a zero is "not said here".
type Connections struct {
	// MaxAge is how old a connection may be when a request takes it.
	MaxAge Duration `json:"max_age,omitempty"`
}

// minConnectionAge is the least MaxAge: with less, most requests would wait for a new connection.
const minConnectionAge = Duration(time.Second)

// Retry is how a failed attempt is repeated.
type Retry struct {
	MaxRetries int      `json:"max_retries"`
	Base       Duration `json:"base"`
	Max        Duration `json:"max"`
}

// Breaker is when a failing target is left alone.
type Breaker struct {
	Failures int      `json:"failures"`
	Pause    Duration `json:"pause"`
}

// Upstream is one provider's API.
type Upstream struct {
	BaseURL    URL               `json:"base_url"`
	APIKey     Secret            `json:"api_key,omitempty"`
	AuthHeader string            `json:"auth_header"`
	ModelField string            `json:"model_field,omitempty"`
	Headers    map[string]Secret `json:"headers,omitempty"`
	Query      map[string]Secret `json:"query,omitempty"`
	// HeadersPass are the client's headers that it gets though they would stay at the gateway.
	HeadersPass []string    `json:"headers_pass,omitempty"`
	Timeouts    Timeouts    `json:"timeouts"`
	Connections Connections `json:"connections"`
	// Proxy is what its connections go through, the environment's if the file names none.
	Proxy ProxyURL `json:"proxy,omitzero"`
	// CA is a file of the certificates that are trusted in place of the system's.
	CA string `json:"ca,omitempty"`
	// MaxInFlight is how many requests it gets at once, 0 for any number, and QueueTimeout how
	// long one may wait until it is among them.
	MaxInFlight  int      `json:"max_in_flight,omitempty"`
	QueueTimeout Duration `json:"queue_timeout"`
	// StreamUsage: it may be asked to tell a stream's usage.
	StreamUsage bool `json:"stream_usage"`

	roots    *x509.CertPool
	ca       []byte
	unset    bool // api_key is given and empty
	variable string
}

// Roots are the certificates of CA, and their PEM; nil for the system's.
func (u *Upstream) Roots() (*x509.CertPool, []byte) { return u.roots, u.ca }

// Model is a public model name's meaning.
type Model struct {
	Targets    []*Target `json:"targets"`
	MaxRetries *int      `json:"max_retries,omitempty"`
	Fallbacks  []string  `json:"fallbacks,omitempty"`
	Timeouts   Timeouts  `json:"timeouts"`
}

// Target is one upstream's name for a model. An empty Model is the public name.
type Target struct {
	Upstream string `json:"upstream"`
	Model    string `json:"model"`
	Weight   int    `json:"weight"`
}

// Default is the configuration of an empty file.
func Default() *Config {
	return &Config{
		Listen: ":8080",
		Admin:  Admin{Listen: "127.0.0.1:9090"},
		Keys:   Keys{Store: "data/keys.db", WithoutStore: Share},
		Limits: Limits{Body: 32 << 20, Response: 32 << 20, Head: 32 << 10, UpstreamHead: 64 << 10, InFlight: 20000},
		Timeouts: ServerTimeouts{
			Timeouts: Timeouts{
				Connect:         Duration(2 * time.Second),
				FirstByte:       Duration(time.Minute),
				Total:           Duration(10 * time.Minute),
				StreamIdle:      Duration(time.Minute),
				StreamKeepalive: Duration(15 * time.Second),
			},
			Shutdown: Duration(30 * time.Second),
			Client: ClientTimeouts{
				Header: Duration(10 * time.Second),
				Body:   Duration(time.Minute),
				Idle:   Duration(90 * time.Second),
				Write:  Duration(30 * time.Second),
			},
		},
		Connections: Connections{MaxAge: Duration(5 * time.Minute)},

		Retry:   Retry{MaxRetries: 2, Base: Duration(100 * time.Millisecond), Max: Duration(5 * time.Second)},
		Breaker: Breaker{Failures: 5, Pause: Duration(time.Second)},
	}
}

func defaultUpstream() Upstream {
	return Upstream{AuthHeader: "Authorization", QueueTimeout: Duration(500 * time.Millisecond), StreamUsage: true}
}

func defaultTarget() Target { return Target{Weight: 1} }

// Duration is written "30s" in the file and in JSON.
type Duration time.Duration

// Std is d for the standard library.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes "30s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Size is a number of bytes, written "10MiB" in the file.
type Size int64

// Sampling is the part of all that is taken, 0 to 1, written true, false or 0.05 in the file.
type Sampling float64

// MarshalJSON writes it as the file has it.
func (s Sampling) MarshalJSON() ([]byte, error) {
	switch s {
	case 0:
		return []byte("false"), nil
	case 1:
		return []byte("true"), nil
	}
	return strconv.AppendFloat(nil, float64(s), 'g', -1, 64), nil
}

const redacted = "[redacted]"

// Secret is text that is never printed: every common way of printing it shows
// "[redacted]".
type Secret string

// Reveal is the text itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string { return redacted }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return redacted }

// MarshalText hides the secret from JSON and from log/slog.
func (s Secret) MarshalText() ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	return []byte(redacted), nil
}

// URL is printed without its user info.
type URL struct{ url.URL }

func (u URL) String() string {
	if u.User != nil {
		return u.Scheme + "://" + redacted + "@" + u.Host + u.EscapedPath()
	}
	return u.URL.String()
}

// MarshalText hides the user info from JSON and from log/slog.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Location is a file, or the redis:// or rediss:// URL of a store that several nodes share, which is
// printed without its user info.
type Location string

// Shared reports whether it is a URL.
func (l Location) Shared() bool { return strings.Contains(string(l), "://") }

// In is l, a relative file being relative to folder.
func (l Location) In(folder string) Location {
	if l.Shared() || filepath.IsAbs(string(l)) {
		return l
	}
	return Location(filepath.Join(folder, string(l)))
}

func (l Location) String() string {
	if u, err := url.Parse(string(l)); l.Shared() && err == nil {
		return URL{*u}.String()
	} else if l.Shared() {
		return redacted
	}
	return string(l)
}

// MarshalText hides the user info from JSON and from log/slog.
func (l Location) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// MaxRetriesFor is how often a failed try of model may be repeated.
func (c *Config) MaxRetriesFor(model *Model) int {
	if model.MaxRetries != nil {
		return *model.MaxRetries
	}
	return c.Retry.MaxRetries
}

// ConnectionsFor is what holds for connections to upstream, which goes before the top of the file.
func (c *Config) ConnectionsFor(upstream *Upstream) Connections {
	return Connections{MaxAge: cmp.Or(upstream.Connections.MaxAge, c.Connections.MaxAge)}
}

// TimeoutsFor is what holds for model's requests to upstream: the nearest that says
// something, the model first. Every one but StreamTotal is set.
func (c *Config) TimeoutsFor(model *Model, upstream *Upstream) Timeouts {
	t := model.Timeouts.Over(upstream.Timeouts).Over(c.Timeouts.Timeouts)
	if t.Response == 0 {
		t.Response = t.Total
	}
	return t
}
