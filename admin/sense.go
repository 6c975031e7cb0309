package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/keys"
)

// force has a key take models that are not configured yet, and an expiry in the past.
const force = "force"

// forced reads the query.
func forced(r *http.Request) (bool, error) {
	switch r.URL.Query().Get(force) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, &keys.FieldError{Field: force, Message: "must be true or false"}
}

// sensible refuses of a key what is most likely a mistake. Only what differs from old, which may be
// nil, is looked at: a key stays changeable when a model of it has gone.
func (a *Admin) sensible(spec, old *keys.Spec, forced bool) error {
	if old == nil {
		old = &keys.Spec{}
	}
	configured := a.live.Status().Config.Models
	for _, model := range spec.Models {
		switch {
		case model == keys.AllowsAll || slices.Contains(old.Models, model):
		case strings.Contains(model, "*"):
			return &keys.FieldError{Field: "models", Message: fmt.Sprintf(
				`%.100q is a pattern, which is not understood; name each model, or write ["*"] for all`, model)}
		case configured[model] == nil && !forced:
			return &keys.FieldError{Field: "models", Message: fmt.Sprintf(
				"%.100q is not configured; correct it, or repeat with ?force=true (sluice keys: -force) if it comes later", model)}
		}
	}
	expires := spec.ExpiresAt
	changed := expires != nil && (old.ExpiresAt == nil || !expires.Equal(*old.ExpiresAt))
	if changed && !forced && expires.Before(time.Now()) {
		return &keys.FieldError{Field: "expires_at", Message: fmt.Sprintf(
			"%s is in the past; give a later time, disable or revoke the key, or repeat with ?force=true (sluice keys: -force)", expires.Format(time.RFC3339))}
	}
	return nil
}
