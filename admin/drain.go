package admin

import (
	"net/http"

	"sluice/record"
)

// drain takes an upstream out of service, or back in; with ?target= only that one of its targets.
func (a *Admin) drain(on bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if err := record.CheckParams(query, "target"); err != nil { // or a mistyped target would drain the whole upstream
			refuseParam(w, err)
			return
		}
		if query.Has("target") && query.Get("target") == "" {
			writeError(w, 400, "invalid_request", "target", "target must be what the upstream calls a model, or absent for the whole upstream")
			return
		}
		status, err := a.pool.Drain(r.PathValue("name"), query.Get("target"), on)
		if err != nil {
			writeError(w, 404, "not_found", "", err.Error())
			return
		}
		writeJSON(w, 200, status)
	}
}
