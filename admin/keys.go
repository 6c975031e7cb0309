package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"sluice/keys"
)

const (
	maxBody     = 256 << 10
	defaultPage = 100
	maxPage     = 1000
)

// keyView is a key as the admin API shows it; Key is its secret, shown when it is made.
type keyView struct {
	*keys.Spec
	Key      string `json:"key,omitempty"`
	InFlight *int64 `json:"in_flight,omitempty"`
}

func view(k *keys.Key) keyView {
	n := k.Gate.InFlight()
	return keyView{Spec: k.Spec(), InFlight: &n}
}

func (a *Admin) listKeys(w http.ResponseWriter, r *http.Request) {
	limit := defaultPage
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			writeError(w, 400, "invalid_request", "limit", "limit must be from 1 to "+strconv.Itoa(maxPage))
			return
		}
		limit = n
	}
	list, more, err := a.keys.List(limit, r.URL.Query().Get("after"))
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	data := make([]keyView, len(list))
	for i, k := range list {
		data[i] = view(k)
	}
	writeJSON(w, 200, map[string]any{"object": "list", "data": data, "has_more": more})
}

func (a *Admin) createKey(w http.ResponseWriter, r *http.Request) {
	var spec keys.Spec
	if err := readChange(w, r, &spec); err != nil {
		a.storeFailed(w, err)
		return
	}
	made, secret, err := a.keys.Create(spec)
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	a.log.Info("key made", "id", made.ID, "name", made.Name)
	writeJSON(w, 201, keyView{Spec: made, Key: secret})
}

func (a *Admin) showKey(w http.ResponseWriter, r *http.Request) {
	k, err := a.keys.Get(r.PathValue("id"))
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	writeJSON(w, 200, view(k))
}

func (a *Admin) updateKey(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r)
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	id := r.PathValue("id")
	if _, err := a.keys.Update(id, func(s *keys.Spec) error { return change(s, body) }); err != nil {
		a.storeFailed(w, err)
		return
	}
	a.log.Info("key changed", "id", id)
	a.showKey(w, r)
}

func (a *Admin) deleteKey(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if err := a.keys.Delete(id); err != nil {
		a.storeFailed(w, err)
		return
	}
	a.log.Info("key revoked", "id", id)
	writeJSON(w, 200, map[string]any{"id": id, "deleted": true})
}

func (a *Admin) rotateKey(w http.ResponseWriter, r *http.Request) {
	spec, secret, err := a.keys.Rotate(r.PathValue("id"))
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	a.log.Info("key rotated", "id", spec.ID)
	writeJSON(w, 200, keyView{Spec: spec, Key: secret})
}

// storeFailed answers an error of the store or of reading what to store.
func (a *Admin) storeFailed(w http.ResponseWriter, err error) {
	var field *keys.FieldError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &field):
		writeError(w, 400, "invalid_request", field.Field, field.Error())
	case errors.As(err, &tooLarge):
		writeError(w, 413, "body_too_large", "", "the body is larger than "+strconv.Itoa(maxBody)+" bytes")
	case errors.Is(err, keys.ErrNotFound):
		writeError(w, 404, "not_found", "", "no key has this id")
	case errors.Is(err, errBody):
		writeError(w, 400, "invalid_json", "", err.Error())
	default:
		a.log.Error("key store failed", "error", err)
		writeError(w, 500, "internal", "", "the key store failed; the log says why")
	}
}

var errBody = errors.New("the body must be one JSON object")

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
}

func readChange(w http.ResponseWriter, r *http.Request, s *keys.Spec) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	return change(s, body)
}

// field is one that a body may have: where its value goes, and what it must be.
type field struct {
	into any
	want string
}

// change puts the fields of a JSON object into s: an absent one stays, a null clears.
func change(s *keys.Spec, body []byte) error {
	limits := json.RawMessage(nil)
	var expires *time.Time
	fields, err := decode("", body, map[string]field{
		"name":       {&s.Name, "a string"},
		"expires_at": {&expires, `a time such as "2027-01-31T00:00:00Z", or null`},
		"disabled":   {&s.Disabled, "true or false"},
		"models":     {&s.Models, "a list of model names"},
		"limits":     {&limits, "an object"},
	})
	if err != nil {
		return err
	}
	if fields["expires_at"] {
		s.ExpiresAt = expires
	}
	switch {
	case !fields["limits"]:
	case string(limits) == "null":
		s.Limits = keys.Limits{}
	default:
		given, err := decode("limits.", limits, map[string]field{
			"requests":   {&s.Limits.Requests, "a whole number, or null"},
			"period":     {&s.Limits.Period, `a duration such as "60s"`},
			"concurrent": {&s.Limits.Concurrent, "a whole number, or null"},
		})
		if err != nil {
			return err
		}
		if s.Limits.Requests == nil && !given["period"] {
			s.Limits.Period = nil // it goes with the requests
		}
	}
	return nil
}

// decode reads a JSON object field by field, so that an error names its field, and returns
// which fields there are.
func decode(prefix string, body []byte, fields map[string]field) (map[string]bool, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(body, &values); err != nil || values == nil {
		if prefix != "" {
			return nil, &keys.FieldError{Field: prefix[:len(prefix)-1], Message: "must be an object"}
		}
		return nil, errBody
	}
	given := map[string]bool{}
	for name, value := range values {
		f, known := fields[name]
		if !known {
			return nil, &keys.FieldError{Field: prefix + name, Message: "is not a known field"}
		}
		if err := json.Unmarshal(value, f.into); err != nil {
			return nil, &keys.FieldError{Field: prefix + name, Message: "must be " + f.want}
		}
		given[name] = true
	}
	return given, nil
}
