// Package keys holds the gateway keys: what each may do, the windows and gates that
// hold it to that, an index in memory that requests look keys up in, and the store
// that survives a restart. A secret is shown once, when it is made; kept is only its
// SHA-256.
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/limiter"
)

// Hash is the SHA-256 of a secret.
type Hash [sha256.Size]byte

const (
	secretPrefix = "sk-sluice-"
	secretBytes  = 32
	// secretLength is of secretPrefix and 256 bits in unpadded URL-safe base64.
	secretLength = len(secretPrefix) + 43
	shownLength  = len(secretPrefix) + 4
)

// Spec is what is known of a key. It is never changed, only replaced.
type Spec struct {
	ID        string     `json:"id"`
	Prefix    string     `json:"prefix"`
	Name      string     `json:"name"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	Disabled  bool       `json:"disabled"`
	Models    []string   `json:"models"`
	Limits    Limits     `json:"limits"`
}

// Limits are what a key may take; a nil one is no limit.
type Limits struct {
	Requests   *int64  `json:"requests,omitempty"`
	Tokens     *int64  `json:"tokens,omitempty"`
	Period     *Period `json:"period,omitempty"` // of both; set whenever one of them is
	Concurrent *int64  `json:"concurrent,omitempty"`
}

// Period is a duration, in JSON a string such as "60s".
type Period time.Duration

// DefaultPeriod is that of a limit that names none.
const DefaultPeriod = Period(time.Minute)

// MarshalText writes whole seconds as "60s", everything else as time.Duration does.
func (p Period) MarshalText() ([]byte, error) {
	if d := time.Duration(p); d%time.Second == 0 {
		return fmt.Appendf(nil, "%ds", d/time.Second), nil
	}
	return []byte(time.Duration(p).String()), nil
}

// UnmarshalText reads what time.ParseDuration does.
func (p *Period) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf(`must be a duration such as "60s", not %q`, b)
	}
	*p = Period(d)
	return nil
}

// AllowsAll is the entry of Spec.Models that stands for every model.
const AllowsAll = "*"

// Allows reports whether the key may use the model.
func (s *Spec) Allows(model string) bool {
	return slices.Contains(s.Models, model) || slices.Contains(s.Models, AllowsAll)
}

// Usable reports whether the key is good at now: neither disabled nor expired.
func (s *Spec) Usable(now time.Time) bool {
	return !s.Disabled && (s.ExpiresAt == nil || now.Before(*s.ExpiresAt))
}

// state names what Usable sees.
func (s *Spec) state(now time.Time) string {
	switch {
	case s.Disabled:
		return "disabled"
	case !s.Usable(now):
		return "expired"
	}
	return "active"
}

// clone is s with nothing shared, to be changed.
func (s *Spec) clone() Spec {
	c := *s
	c.Models = slices.Clone(s.Models)
	c.ExpiresAt = clonePointer(s.ExpiresAt)
	l := &s.Limits
	c.Limits = Limits{clonePointer(l.Requests), clonePointer(l.Tokens), clonePointer(l.Period), clonePointer(l.Concurrent)}
	return c
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// FieldError is a value that a key cannot have.
type FieldError struct {
	Field   string // as in limits.requests
	Message string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

const (
	maxName       = 200
	maxModels     = 1000
	maxConcurrent = 1_000_000
)

// check fills defaults in and says what is wrong.
func (s *Spec) check() error {
	bad := func(field, format string, args ...any) error {
		return &FieldError{Field: field, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case strings.TrimSpace(s.Name) == "":
		return bad("name", "is needed: what or whom the key is for")
	case len(s.Name) > maxName:
		return bad("name", "must have at most %d bytes, not %d", maxName, len(s.Name))
	case s.Models != nil && len(s.Models) == 0:
		return bad("models", `must name a model; ["*"] allows all`)
	case len(s.Models) > maxModels:
		return bad("models", "must have at most %d entries, not %d", maxModels, len(s.Models))
	case slices.Contains(s.Models, ""):
		return bad("models", "must not have an empty name")
	}
	if s.Models == nil {
		s.Models = []string{AllowsAll}
	}
	l := &s.Limits
	if !l.counts() && l.Period != nil {
		return bad("limits.period", "needs limits.requests or limits.tokens beside it")
	}
	for _, counted := range [...]struct {
		field string
		limit *int64
	}{{"limits.requests", l.Requests}, {"limits.tokens", l.Tokens}} {
		if n := counted.limit; n != nil && (*n < 1 || *n > limiter.MaxLimit) {
			return bad(counted.field, "must be from 1 to %d, not %d", limiter.MaxLimit, *n)
		}
	}
	if l.counts() {
		if l.Period == nil {
			period := DefaultPeriod
			l.Period = &period
		}
		if p := time.Duration(*l.Period); p < time.Second || p > 24*time.Hour {
			return bad("limits.period", `must be from "1s" to "24h", not %q`, p)
		}
	}
	if l.Concurrent != nil && (*l.Concurrent < 1 || *l.Concurrent > maxConcurrent) {
		return bad("limits.concurrent", "must be from 1 to %d, not %d", maxConcurrent, *l.Concurrent)
	}
	return nil
}

// counts reports whether anything is counted over a period.
func (l *Limits) counts() bool { return l.Requests != nil || l.Tokens != nil }

// newSecret makes a secret of 256 random bits.
func newSecret() string {
	var b [secretBytes]byte
	rand.Read(b[:]) // never fails: the runtime aborts instead
	return secretPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// hashOf is the hash of what a client sent as its key; false for what cannot be one,
// by its length and its public prefix alone.
func hashOf(secret []byte) (Hash, bool) {
	if len(secret) != secretLength || string(secret[:len(secretPrefix)]) != secretPrefix {
		return Hash{}, false
	}
	return sha256.Sum256(secret), true
}

const idPrefix = "key_"

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newID makes an id; ids sort by the time they were made.
func newID(now time.Time) string {
	var b [15]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:])
	return idPrefix + idEncoding.EncodeToString(b[:])
}
