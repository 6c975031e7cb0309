package record

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Filter is which requests are wanted. The zero Filter lets all through.
type Filter struct {
	Key             string // id or name
	Model, Upstream string // of any attempt
	Error           string // a kind, a family of kinds such as upstream, or any
	Status          int    // exact, or the class where it is below 10
	Slow            time.Duration
}

// FilterError is a parameter that a Filter cannot have.
type FilterError struct{ Param, Message string }

func (e *FilterError) Error() string { return e.Param + " " + e.Message }

// AnyError is the Error of a Filter for requests with any.
const AnyError = "any"

// ParseFilter reads the parameters key, model, upstream, error, status and slow. kinds are those that
// error may be.
func ParseFilter(q url.Values, kinds []string) (f Filter, err error) {
	f.Key, f.Model, f.Upstream, f.Error = q.Get("key"), q.Get("model"), q.Get("upstream"), q.Get("error")
	if f.Error != "" && f.Error != AnyError && !slices.ContainsFunc(kinds, func(k string) bool { return isKind(k, f.Error) }) {
		return f, &FilterError{"error", "must be any, caller, policy, upstream, gateway, or one of " + strings.Join(kinds, ", ")}
	}
	if text := q.Get("status"); text != "" {
		if f.Status = parseStatus(text); f.Status == 0 {
			return f, &FilterError{"status", "must be a status such as 429, or a class such as 5xx"}
		}
	}
	if text := q.Get("slow"); text != "" {
		if f.Slow, err = time.ParseDuration(text); err != nil || f.Slow <= 0 {
			return f, &FilterError{"slow", `must be a duration above zero such as "2s"`}
		}
	}
	return f, nil
}

// parseStatus reads a status or a class; 0 for neither.
func parseStatus(text string) int {
	if class, is := strings.CutSuffix(strings.ToLower(text), "xx"); is && len(class) == 1 {
		text = class
	} else if len(text) != 3 {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 599 || n > 5 && n < 100 {
		return 0
	}
	return n
}

// CheckParams refuses parameters that are not among those that a path knows.
func CheckParams(q url.Values, known ...string) error {
	for name := range q {
		if !slices.Contains(known, name) {
			return &FilterError{name[:min(len(name), 100)], fmt.Sprintf("is not known; known are %s", strings.Join(known, ", "))}
		}
	}
	return nil
}

// isKind reports whether kind is what wanted names: itself, or its family.
func isKind(kind, wanted string) bool {
	rest, is := strings.CutPrefix(kind, wanted)
	return is && (rest == "" || rest[0] == '_')
}

// Matches reports whether f lets r through.
func (f *Filter) Matches(r *Request) bool {
	switch {
	case f.Slow > 0 && r.Took < f.Slow,
		f.Status >= 100 && r.Status != f.Status,
		f.Status > 0 && f.Status < 10 && r.Status/100 != f.Status,
		f.Error == AnyError && r.Error == "",
		f.Error != "" && f.Error != AnyError && !isKind(r.Error, f.Error),
		f.Key != "" && r.Key != f.Key && r.KeyName != f.Key,
		f.Model != "" && r.Model != f.Model && !slices.ContainsFunc(r.Attempts, func(a Attempt) bool { return a.Model == f.Model }),
		f.Upstream != "" && r.Upstream != f.Upstream && !slices.ContainsFunc(r.Attempts, func(a Attempt) bool { return a.Upstream == f.Upstream }):
		return false
	}
	return true
}
