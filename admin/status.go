package admin

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"sluice/config"
	"sluice/pool"
)

func (a *Admin) listUpstreams(w http.ResponseWriter, _ *http.Request) {
	data := []pool.Status{}
	for _, u := range a.proxy.Set().Upstreams {
		data = append(data, u.Status())
	}
	writeJSON(w, 200, map[string]any{"object": "list", "data": data})
}

type targetView struct {
	Upstream string          `json:"upstream"`
	Model    json.RawMessage `json:"model"`
	Weight   int             `json:"weight"`
	InFlight int64           `json:"in_flight"`
	Breaker  string          `json:"breaker"`
	// CredentialRefused: the target refused the gateway's credential, and nothing has been accepted since.
	CredentialRefused bool `json:"credential_refused"`
	// Drained: an operator has drained the target, or its upstream.
	Drained  bool    `json:"drained"`
	ServesIn float64 `json:"serves_in_seconds"`
	// LastFailure is the upstream's newest, nil without one.
	LastFailure *pool.Failure `json:"last_failure"`
	// Since is since when its breaker is not closed or its credential refused.
	Since *time.Time `json:"since,omitempty"`
	// Credential is "not set" for a target that is never asked, as its upstream has none and needs one.
	Credential string `json:"credential,omitempty"`
}

type modelView struct {
	ID         string       `json:"id"`
	Targets    []targetView `json:"targets"`
	MaxRetries int          `json:"max_retries"`
	Fallbacks  []string     `json:"fallbacks"` // theirs among them
}

func (a *Admin) listModels(w http.ResponseWriter, _ *http.Request) {
	models := a.proxy.Set().Models
	data := []modelView{}
	for _, id := range slices.Sorted(maps.Keys(models)) {
		m := modelView{ID: id, MaxRetries: models[id].MaxRetries, Fallbacks: []string{}}
		for _, t := range models[id].Targets {
			m.Targets = append(m.Targets, a.viewOf(t, ""))
		}
		for _, t := range models[id].Unset {
			m.Targets = append(m.Targets, a.viewOf(t, "not set"))
		}
		for _, f := range models[id].Fallbacks {
			m.Fallbacks = append(m.Fallbacks, f.Name)
		}
		data = append(data, m)
	}
	writeJSON(w, 200, map[string]any{"object": "list", "data": data})
}

func (a *Admin) viewOf(t *pool.Target, credential string) targetView {
	s := t.Status()
	v := targetView{
		Upstream: t.Upstream.Name, Model: t.Name, Weight: t.Weight, InFlight: s.InFlight, Breaker: s.Breaker,
		CredentialRefused: s.CredentialRefused, Drained: s.Drained, ServesIn: s.ServesIn, LastFailure: t.Upstream.LastFailure(), Credential: credential,
	}
	if since := a.series.Since(t.Model, t.Upstream.Name, t.TargetName()); !since.IsZero() {
		since = since.UTC()
		v.Since = &since
	}
	return v
}

func (a *Admin) showConfig(w http.ResponseWriter, _ *http.Request) {
	status := a.live.Status()
	writeJSON(w, 200, struct {
		config.Status
		DataAddress string   `json:"data_address"` // where the data port listens
		Version     string   `json:"version"`
		Warnings    []string `json:"warnings"`
	}{status, a.data.String(), a.version, append([]string{}, status.Config.Warnings()...)})
}

// showStatus answers what a look at the gateway begins with.
func (a *Admin) showStatus(w http.ResponseWriter, _ *http.Request) {
	status := a.live.Status()
	targets := map[string]int{"closed": 0, "half_open": 0, "open": 0, "refused": 0, "not_set": 0}
	for _, m := range a.proxy.Set().Models {
		targets["not_set"] += len(m.Unset)
		for _, t := range m.Targets {
			s := t.Status()
			if s.CredentialRefused {
				targets["refused"]++
			}
			targets[s.Breaker]++
		}
	}
	writeJSON(w, 200, map[string]any{
		"version": a.version, "ready": a.proxy.Ready(), "data_address": a.data.String(), "tls": status.Config.TLS != nil,
		"generation": status.Generation, "loaded_at": status.LoadedAt, "tried_at": status.TriedAt, "error": status.Error,
		"restart":   append([]string{}, status.Restart...),
		"in_flight": a.proxy.InFlight(), "requests": a.proxy.Recorder().Ring.Last(),
		"keys": a.keys.States(time.Now()), "models": len(status.Config.Models), "targets": targets,
	})
}

func (a *Admin) reload(w http.ResponseWriter, r *http.Request) {
	err := a.live.Reload(r.Context())
	var bad *config.Error
	switch {
	case err == nil:
		status := a.live.Status()
		writeJSON(w, 200, map[string]any{"generation": status.Generation, "restart": append([]string{}, status.Restart...)})
	case errors.As(err, &bad):
		writeError(w, 400, "invalid_config", bad.Findings[0].Path, err.Error())
	default:
		writeError(w, 400, "invalid_config", "", err.Error())
	}
}
