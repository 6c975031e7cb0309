package keys

import (
	"fmt"
	"strings"
	"time"

	"sluice/limiter"
)

// Limits are what a key may take; a nil one is no limit. Each has its row in the list of limits.
type Limits struct {
	Requests   *int64  `json:"requests,omitempty"`
	Tokens     *int64  `json:"tokens,omitempty"`
	Period     *Period `json:"period,omitempty"` // of those that are periodic; set whenever one of them is
	Concurrent *int64  `json:"concurrent,omitempty"`
}

// Demand is what a meter asks of a request. Each method is called only for keys with that limit.
type Demand interface {
	// TokensNeeded is the most tokens that the request may use, as far as is known before it is sent.
	TokensNeeded() int64
	// TokensUsed is how many it has used in the end, of which reserved were charged before.
	TokensUsed(reserved int64) int64
	// TokensNote is what a refusal says besides, where the key may have most tokens.
	TokensNote(most int64) string
}

// limits are the limits that a key may have, in the order in which they are shown. Meters are
// charged in the opposite order: only the last one charged may be one that cannot give back.
var limits = [...]limit{
	{
		number: number{"requests", func(l *Limits) **int64 { return &l.Requests }, limiter.MaxLimit, true},
		counter: func(r limiter.Rule, now time.Duration) limiter.Counter {
			return limiter.NewAdmissions(r.Limit, r.Period, now)
		},
		needs: func(Demand) int64 { return 1 },
	},
	{
		number: number{"tokens", func(l *Limits) **int64 { return &l.Tokens }, limiter.MaxLimit, true},
		counter: func(r limiter.Rule, now time.Duration) limiter.Counter {
			return limiter.NewLedger(r.Limit, r.Period, now)
		},
		needs: Demand.TokensNeeded, used: Demand.TokensUsed, note: Demand.TokensNote,
	},
	// No meter counts this one: each request of the key is in Key.Gate while it is in flight.
	{number: number{"concurrent", func(l *Limits) **int64 { return &l.Concurrent }, maxConcurrent, false}},
}

const maxConcurrent = 1_000_000

// limit is a row of the list: what a limit is called, its value, and how it is counted.
type limit struct {
	number
	counter func(rule limiter.Rule, now time.Duration) limiter.Counter
	needs   func(Demand) int64                   // the amount that a request is charged
	used    func(d Demand, reserved int64) int64 // what it is settled by; nil: by what it was charged, at once
	note    func(d Demand, most int64) string    // nil: none
}

// number is a limit's value among Limits, where it is a whole number.
type number struct {
	name     string
	of       func(*Limits) **int64
	most     int64
	periodic bool // it is a limit of each Limits.Period
}

// check says what is wrong.
func (n *number) check(l *Limits) error {
	if v := *n.of(l); v != nil && (*v < 1 || *v > n.most) {
		return badField("limits."+n.name, "must be from 1 to %d, not %d", n.most, *v)
	}
	return nil
}

// clone has l share its value with nothing.
func (n *number) clone(l *Limits) {
	v := n.of(l)
	*v = clonePointer(*v)
}

// rule is the limit as a Counter has it.
func (n *number) rule(l *Limits) limiter.Rule {
	v := *n.of(l)
	if v == nil {
		return limiter.Rule{}
	}
	rule := limiter.Rule{Limit: *v}
	if n.periodic && l.Period != nil {
		rule.Period = time.Duration(*l.Period)
	}
	return rule
}

// LimitField is one of the Limits, as a JSON object has it. null is no limit.
type LimitField struct {
	Name string
	Into any // where json.Unmarshal puts the value
	Want string
}

// Fields are all of the Limits but Period.
func (l *Limits) Fields() (all []LimitField) {
	for i := range limits {
		all = append(all, LimitField{limits[i].name, limits[i].of(l), "a whole number, or null"})
	}
	return all
}

// Periodic reports whether l has a limit of each Period.
func (l *Limits) Periodic() bool {
	for i := range limits {
		if limits[i].periodic && *limits[i].of(l) != nil {
			return true
		}
	}
	return false
}

// Clone is l with nothing shared.
func (l *Limits) Clone() Limits {
	c := *l
	c.Period = clonePointer(l.Period)
	for i := range limits {
		limits[i].clone(&c)
	}
	return c
}

// check fills the default period in and says what is wrong.
func (l *Limits) check() error {
	periodic := l.Periodic()
	if !periodic && l.Period != nil {
		return badField("limits.period", "needs %s beside it", strings.Join(periodicNames(), " or "))
	}
	for i := range limits {
		if err := limits[i].check(l); err != nil {
			return err
		}
	}
	if !periodic {
		return nil
	}
	if l.Period == nil {
		period := DefaultPeriod
		l.Period = &period
	}
	if p := time.Duration(*l.Period); p < time.Second || p > 24*time.Hour {
		return badField("limits.period", `must be from "1s" to "24h", not %q`, p)
	}
	return nil
}

func periodicNames() (names []string) {
	for i := range limits {
		if limits[i].periodic {
			names = append(names, "limits."+limits[i].name)
		}
	}
	return names
}

// Period is a duration, in JSON a string such as "60s".
type Period time.Duration

// DefaultPeriod is that of Limits that name none.
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
