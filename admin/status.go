package admin

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"

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
	// Health is of the upstream: its newest failure, nil without one.
	InFlight    int64         `json:"in_flight"`
	LastFailure *pool.Failure `json:"last_failure"`
}

type modelView struct {
	ID      string       `json:"id"`
	Targets []targetView `json:"targets"`
}

func (a *Admin) listModels(w http.ResponseWriter, _ *http.Request) {
	models := a.proxy.Set().Models
	data := []modelView{}
	for _, id := range slices.Sorted(maps.Keys(models)) {
		m := modelView{ID: id}
		for _, t := range models[id].Targets {
			s := t.Upstream.Status()
			m.Targets = append(m.Targets, targetView{Upstream: s.Name, Model: t.Name, Weight: t.Weight, InFlight: s.InFlight, LastFailure: s.LastFailure})
		}
		data = append(data, m)
	}
	writeJSON(w, 200, map[string]any{"object": "list", "data": data})
}

func (a *Admin) showConfig(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, 200, a.live.Status())
}

func (a *Admin) reload(w http.ResponseWriter, _ *http.Request) {
	err := a.live.Reload()
	var bad *config.Error
	switch {
	case err == nil:
		writeJSON(w, 200, map[string]any{"generation": a.live.Status().Generation})
	case errors.As(err, &bad):
		writeError(w, 400, "invalid_config", bad.Findings[0].Path, err.Error())
	default:
		writeError(w, 400, "invalid_config", "", err.Error())
	}
}
