package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

func modelStates(ctx context.Context, admin *client) (rows []topRow, err error) {
	models, err := into[listed[model]](ctx, admin, "GET", "/api/models", nil)
	for _, m := range models.Data {
		r := topRow{Name: m.ID}
		for i := range m.Targets {
			r.InFlight += m.Targets[i].InFlight
		}
		r.setState(stateOf(m.Targets))
		rows = append(rows, r)
	}
	return rows, err
}

func upstreamStates(ctx context.Context, admin *client) (rows []topRow, err error) {
	upstreams, err := into[listed[upstream]](ctx, admin, "GET", "/api/upstreams", nil)
	for _, u := range upstreams.Data {
		r := topRow{Name: u.Name, InFlight: u.InFlight}
		r.setState(stateOf(u.Targets))
		if u.Drained {
			r.setState(cell{"drained", yellow})
		}
		rows = append(rows, r)
	}
	return rows, err
}

// keyStates are the keys that have most in flight: there may be very many.
func keyStates(ctx context.Context, admin *client) (rows []topRow, err error) {
	keys, err := into[listed[key]](ctx, admin, "GET", "/api/keys?sort=-in_flight&limit=100", nil)
	for _, k := range keys.Data {
		r := topRow{ID: k.ID, Name: k.Name, InFlight: k.InFlight}
		r.setState(k.state())
		rows = append(rows, r)
	}
	return rows, err
}

func (r *topRow) setState(state cell) { r.State, r.style = state.text, state.style }

// targetStates are the states that a target may be in, the worst first.
var targetStates = [...]cell{{"credential not set", red}, {"credential refused", red}, {"open", red},
	{"half open", yellow}, {"resting", yellow}, {"drained", yellow}, {"closed", green}}

// brief is the target's state without its times, as an index of targetStates.
func (t *target) brief() int {
	word := "closed"
	switch {
	case t.Drained:
		word = "drained"
	case t.Credential != "":
		word = "credential not set"
	case t.Refused:
		word = "credential refused"
	case t.Breaker != "closed":
		word = strings.ReplaceAll(t.Breaker, "_", " ")
	case t.ServesIn > 0:
		word = "resting"
	}
	return slices.IndexFunc(targetStates[:], func(s cell) bool { return s.text == word })
}

// stateOf sums up the states of targets.
func stateOf(targets []target) cell {
	var counts [len(targetStates)]int
	for i := range targets {
		if at := targets[i].brief(); at >= 0 {
			counts[at]++
		}
	}
	var parts []string
	worst := -1
	for i, n := range counts {
		if n == 0 {
			continue
		}
		if worst < 0 {
			worst = i
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, targetStates[i].text))
	}
	switch len(parts) {
	case 0:
		return cell{}
	case 1:
		return targetStates[worst]
	}
	style := targetStates[worst].style
	if counts[len(counts)-1] > 0 {
		style = yellow // another serves
	}
	return cell{strings.Join(parts, ", "), style}
}
