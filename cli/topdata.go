package cli

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"
)

// topKind is what a row of top is about.
type topKind struct {
	by     string // as the series name it
	plural string
	rate   string // the title of its rate
	// states are the rows that there are with or without requests, and their state now.
	states func(ctx context.Context, admin *client) ([]topRow, error)
}

var topKinds = [...]topKind{
	{"model", "models", "REQ/S", modelStates},
	{"upstream", "upstreams", "ATTEMPTS/S", upstreamStates},
	{"key", "keys", "REQ/S", keyStates},
}

// topRow is what is known of a model, an upstream or a key.
type topRow struct {
	Name string `json:"name"`
	ID   string `json:"id,omitempty"` // of a key
	// Rate is in requests a second; of an upstream, in attempts.
	Rate      float64 `json:"requests_per_second"`
	P50       float64 `json:"duration_p50,omitempty"` // in seconds, as the next two
	P99       float64 `json:"duration_p99,omitempty"`
	FirstByte float64 `json:"first_byte_p99,omitempty"`
	Errors    int64   `json:"errors"` // an upstream's or the gateway's
	ErrorRate float64 `json:"error_rate"`
	Refused   int64   `json:"refused"` // by a policy, or the caller's own mistake
	InFlight  int64   `json:"in_flight"`
	State     string  `json:"state,omitempty"`

	style style
}

// topData is one look at the gateway.
type topData struct {
	at     time.Time
	window time.Duration // that counts and rates are of
	status topStatus
	rows   []topRow
}

type topStatus struct {
	Version  string `json:"version"`
	Ready    bool   `json:"ready"`
	InFlight int64  `json:"in_flight"`
	Error    string `json:"error"` // of the newest configuration
}

// topPatience is how long one look may take.
const topPatience = 10 * time.Second

// look asks the gateway for what top shows of a kind.
func (k *topKind) look(ctx context.Context, admin *client) (*topData, error) {
	ctx, cancel := context.WithTimeout(ctx, topPatience)
	defer cancel()
	counted, err := into[lastMinute](ctx, admin, "GET", "/api/series?range=1m&top=100&by="+k.by, nil)
	if err != nil {
		return nil, err
	}
	d := &topData{at: time.Now(), window: counted.window()}
	if d.window <= 0 {
		return nil, errNoSluice
	}
	if d.status, err = into[topStatus](ctx, admin, "GET", "/api/status", nil); err != nil {
		return nil, err
	}
	if d.rows, err = k.states(ctx, admin); err != nil {
		return nil, err
	}
	for i := range counted.Data {
		line := &counted.Data[i]
		at := slices.IndexFunc(d.rows, func(r topRow) bool { return cmp.Or(r.ID, r.Name) == line.Name })
		if at < 0 { // it was removed, or is one of many keys
			at = len(d.rows)
			d.rows = append(d.rows, topRow{Name: cmp.Or(line.Label, line.Name), State: "-"})
			if line.Label != "" {
				d.rows[at].ID = line.Name
			}
		}
		line.count(&d.rows[at], d.window)
	}
	return d, nil
}

// lastMinute is the series of the last minute, in steps of ten seconds.
type lastMinute struct {
	LastStep float64       `json:"last_step_seconds"`
	Times    []int64       `json:"times"`
	Since    int64         `json:"since"`
	Data     []countedLine `json:"data"`
}

type countedLine struct {
	Name   string                `json:"name"`
	Label  string                `json:"label"`
	Values map[string][]*float64 `json:"values"`
}

// window is the time in which the requests were counted.
func (m *lastMinute) window() time.Duration {
	if len(m.Times) == 0 {
		return 0
	}
	before := m.Times[len(m.Times)-1] - max(m.Times[0], m.Since) // below zero in the first step of a process
	return time.Duration(max(1, float64(before)+m.LastStep) * float64(time.Second))
}

func (l *countedLine) count(r *topRow, window time.Duration) {
	requests := l.sum("requests")
	r.Rate = math.Round(1000*requests/window.Seconds()) / 1000
	errors := l.sum("errors_upstream") + l.sum("errors_gateway")
	r.Errors, r.Refused = int64(errors), int64(l.sum("errors_caller")+l.sum("errors_policy"))
	r.ErrorRate = math.Round(10_000*errors/max(1, requests)) / 10_000
	r.P50 = l.mean("duration_p50")
	r.P99, r.FirstByte = l.most("duration_p99"), l.most("first_byte_p99")
}

func (l *countedLine) sum(column string) (sum float64) {
	for _, v := range l.Values[column] {
		if v != nil {
			sum += *v
		}
	}
	return sum
}

func (l *countedLine) most(column string) (most float64) {
	for _, v := range l.Values[column] {
		if v != nil {
			most = max(most, *v)
		}
	}
	return most
}

// mean is a column's, each step weighted by its requests.
func (l *countedLine) mean(column string) float64 {
	sum, weight := 0.0, 0.0
	requests := l.Values["requests"]
	for i, v := range l.Values[column] {
		if v != nil && i < len(requests) && requests[i] != nil {
			sum, weight = sum+*v**requests[i], weight+*requests[i]
		}
	}
	if weight == 0 {
		return 0
	}
	return sum / weight
}
