package pool

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/config"
	"sluice/metrics"
)

// Pool owns the upstreams of a process, across configurations.
type Pool struct {
	dial    Dial
	metrics *metrics.Metrics

	mu      sync.Mutex // one configuration at a time
	current map[string]*Upstream
}

// New makes an empty Pool. A nil dial is TCP's.
func New(m *metrics.Metrics, dial Dial) *Pool {
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	return &Pool{dial: dial, metrics: m}
}

// Set is one configuration's upstreams and models. It is read-only.
type Set struct {
	Upstreams []*Upstream // by name
	Models    map[string]*Model
}

// Model is a public name and where it is served.
type Model struct {
	Name    string
	Targets []*Target
	weight  int
}

// Target is one upstream's name for a model, with everything about a request to it that
// can be made ready beforehand.
type Target struct {
	Upstream *Upstream
	Model    string // public
	Weight   int
	Timeouts config.Timeouts
	Metrics  *metrics.Target

	Name       []byte // the upstream's name for the model, as a JSON string
	ModelField []byte // the one field to send it in, as a JSON string; nil for the client's own
	Host       []byte
	BasePath   []byte
	// Headers replace the client's of the same name; the credential is among them.
	Headers []Pair
	// Query is appended to the client's parameters without those of the same name.
	Query []byte
	// QueryNames are the names in Query, decoded.
	QueryNames []string
}

// Pair is a header.
type Pair struct{ Name, Value []byte }

// Replaces reports whether t has a header of its own called name, in any case.
func (t *Target) Replaces(name []byte) bool {
	for i := range t.Headers {
		if strings.EqualFold(string(t.Headers[i].Name), string(name)) {
			return true
		}
	}
	return false
}

// Build compiles a configuration. Upstreams whose address is unchanged are those in use,
// with their connections and counts. Nothing takes effect before Adopt.
func (p *Pool) Build(cfg *config.Config) *Set {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &Set{Models: make(map[string]*Model, len(cfg.Models))}
	byName := map[string]*Upstream{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Upstreams)) {
		u := p.current[name]
		if u == nil || u.Address != addressOf(cfg.Upstreams[name]) {
			u = newUpstream(name, cfg.Upstreams[name], p.dial, p.metrics)
		}
		byName[name] = u
		s.Upstreams = append(s.Upstreams, u)
	}
	for name, m := range cfg.Models {
		model := &Model{Name: name}
		for _, t := range m.Targets {
			c := cfg.Upstreams[t.Upstream]
			target := newTarget(name, t, c, byName[t.Upstream])
			target.Timeouts = cfg.TimeoutsFor(m, c)
			target.Metrics = p.metrics.Target(name, t.Upstream)
			model.Targets = append(model.Targets, target)
			model.weight += t.Weight
		}
		s.Models[name] = model
	}
	return s
}

// Adopt makes s the configuration in use and retires the upstreams that it lacks.
func (p *Pool) Adopt(s *Set) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.current
	p.current = make(map[string]*Upstream, len(s.Upstreams))
	for _, u := range s.Upstreams {
		p.current[u.Name] = u
		if old[u.Name] != u {
			p.metrics.AddUpstream(u.Name,
				func() float64 { return float64(u.inFlight.Load()) },
				func() float64 { return float64(u.client.ConnsCount()) })
		}
	}
	for name, u := range old {
		if p.current[name] == u {
			continue
		}
		u.retire()
		if p.current[name] == nil {
			p.metrics.RemoveUpstream(name)
		}
	}
}

// Close retires every upstream.
func (p *Pool) Close() { p.Adopt(&Set{}) }

func newTarget(model string, t *config.Target, c *config.Upstream, u *Upstream) *Target {
	name := t.Model
	if name == "" {
		name = model
	}
	target := &Target{Upstream: u, Model: model, Weight: t.Weight, Name: quote(name), Host: []byte(c.BaseURL.Host)}
	target.BasePath = []byte(strings.TrimSuffix(c.BaseURL.EscapedPath(), "/"))
	if c.ModelField != "" {
		target.ModelField = quote(c.ModelField)
	}
	for _, h := range slices.Sorted(maps.Keys(c.Headers)) {
		target.Headers = append(target.Headers, Pair{[]byte(h), []byte(c.Headers[h].Reveal())})
	}
	switch {
	case target.Replaces([]byte(c.AuthHeader)):
		// The operator has written the header out.
	case c.APIKey != "" && strings.EqualFold(c.AuthHeader, "Authorization"):
		target.Headers = append(target.Headers, Pair{[]byte("Authorization"), []byte("Bearer " + c.APIKey.Reveal())})
	case c.APIKey != "":
		target.Headers = append(target.Headers, Pair{[]byte(c.AuthHeader), []byte(c.APIKey.Reveal())})
	case c.BaseURL.User != nil:
		target.Headers = append(target.Headers, Pair{[]byte("Authorization"), []byte(basic(c.BaseURL.User))})
	}
	query := url.Values{}
	for name, value := range c.Query {
		query.Set(name, value.Reveal())
		target.QueryNames = append(target.QueryNames, name)
	}
	target.Query = []byte(query.Encode())
	return target
}

// quote writes s as a JSON string. (fastjson's own way writes some characters as Go does,
// not as JSON does.)
func quote(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("BUG: a string is not JSON: " + err.Error())
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// Pick chooses one of the model's targets by weight.
func (m *Model) Pick() *Target {
	if len(m.Targets) == 1 {
		return m.Targets[0]
	}
	n := rand.IntN(m.weight)
	for _, t := range m.Targets {
		if n -= t.Weight; n < 0 {
			return t
		}
	}
	panic("BUG: the weights of " + m.Name + " do not add up")
}
