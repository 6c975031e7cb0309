// Package keys holds the gateway keys: what each may do, the windows and gates that
// hold it to that, an index in memory that requests look keys up in, and the store
// that survives a restart. A secret is shown once, when it is made; kept is only its
// SHA-256.
package keys

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Spec is what is known of a key. It is never changed, only replaced.
type Spec struct {
	ID        string     `json:"id"`
	Prefix    string     `json:"prefix"`
	Name      string     `json:"name"`
	Note      string     `json:"note,omitempty"` // for those who look after it
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	Disabled  bool       `json:"disabled"`
	Models    []string   `json:"models"`
	Limits    Limits     `json:"limits"`
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
	c.Limits = s.Limits.Clone()
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

func badField(field, format string, args ...any) error {
	return &FieldError{Field: field, Message: fmt.Sprintf(format, args...)}
}

const (
	maxName   = 200
	maxNote   = 200 // characters
	maxModels = 1000
)

// check fills defaults in and says what is wrong.
func (s *Spec) check() error {
	switch {
	case strings.TrimSpace(s.Name) == "":
		return badField("name", "is needed: what or whom the key is for")
	case len(s.Name) > maxName:
		return badField("name", "must have at most %d bytes, not %d", maxName, len(s.Name))
	case utf8.RuneCountInString(s.Note) > maxNote:
		return badField("note", "must have at most %d characters, not %d", maxNote, utf8.RuneCountInString(s.Note))
	case s.Models != nil && len(s.Models) == 0:
		return badField("models", `must name a model; ["*"] allows all`)
	case len(s.Models) > maxModels:
		return badField("models", "must have at most %d entries, not %d", maxModels, len(s.Models))
	case slices.Contains(s.Models, ""):
		return badField("models", "must not have an empty name")
	}
	if s.Models == nil {
		s.Models = []string{AllowsAll}
	}
	return s.Limits.check()
}
