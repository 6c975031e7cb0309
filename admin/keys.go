package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"sluice/keys"
	"sluice/record"
)

const (
	maxBody   = 256 << 10
	maxImport = 8 << 20
	// maxFieldShown bounds what an error repeats of a name that is not ours.
	maxFieldShown = 100
	defaultPage   = 100
	maxPage       = 1000
)

// keyView is a key as the admin API shows it; Key is its secret, shown when it is made.
type keyView struct {
	*keys.Spec
	Key      string           `json:"key,omitempty"`
	InFlight *int64           `json:"in_flight,omitempty"`
	Used     map[string]int64 `json:"used,omitempty"` // of each limit, within the last period
}

func (a *Admin) view(k *keys.Key) keyView {
	n := k.Gate.InFlight()
	return keyView{Spec: k.Spec(), InFlight: &n, Used: k.Used(a.clock())}
}

func (a *Admin) listKeys(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	err := record.CheckParams(q, "limit", "after", "q", "sort", "state", "offset")
	limit := 0
	if err == nil {
		limit, err = wholeParam(q, "limit", 1, maxPage, defaultPage)
	}
	if err == nil && q.Has("after") && (q.Has("q") || q.Has("sort") || q.Has("offset") || q.Has("state")) {
		err = badParam("after", "goes with the order of creation alone; with q, sort, state or offset use offset")
	}
	if err != nil {
		refuseParam(w, err)
		return
	}
	if q.Has("q") || q.Has("sort") || q.Has("offset") || q.Has("state") {
		a.searchKeys(w, r, limit)
		return
	}
	list, more := a.keys.List(limit, q.Get("after"))
	data := make([]keyView, len(list))
	for i, k := range list {
		data[i] = a.view(k)
	}
	writeJSON(w, 200, map[string]any{"object": "list", "data": data, "has_more": more, "total": a.keys.Count()})
}

func (a *Admin) createKey(w http.ResponseWriter, r *http.Request) {
	var spec keys.Spec
	forced, err := forced(r)
	if err == nil {
		err = readChange(w, r, &spec)
	}
	if err == nil {
		err = a.sensible(&spec, nil, forced)
	}
	if err != nil {
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
	writeJSON(w, 200, a.view(k))
}

func (a *Admin) updateKey(w http.ResponseWriter, r *http.Request) {
	forced, err := forced(r)
	var body []byte
	if err == nil {
		body, err = readBody(w, r, maxBody)
	}
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	id := r.PathValue("id")
	_, err = a.keys.Update(id, func(s *keys.Spec) error {
		old := *s
		if err := change(s, body); err != nil {
			return err
		}
		return a.sensible(s, &old, forced)
	})
	if err != nil {
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

// exportKeys gives all keys with their hashes, for the store of another gateway.
func (a *Admin) exportKeys(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, 200, map[string]any{"keys": a.keys.Export()})
}

// importKeys takes keys that exportKeys has given.
func (a *Admin) importKeys(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r, maxImport)
	var given struct{ Keys []json.RawMessage }
	if err == nil {
		if json.Unmarshal(body, &given) != nil || given.Keys == nil {
			err = errBody
		}
	}
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	added, known, err := a.keys.Import(given.Keys)
	if added > 0 {
		a.log.Info("keys imported", "added", added, "known", known)
	}
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	writeJSON(w, 200, map[string]any{"added": added, "known": known})
}

// storeFailed answers an error of the store or of reading what to store.
func (a *Admin) storeFailed(w http.ResponseWriter, err error) {
	var field *keys.FieldError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &field):
		writeError(w, 400, "invalid_request", field.Field, field.Error())
	case errors.As(err, &tooLarge):
		writeError(w, 413, "body_too_large", "", "the body is larger than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes")
	case errors.Is(err, keys.ErrNotFound):
		writeError(w, 404, "not_found", "", "no key has this id")
	case errors.Is(err, keys.ErrUnavailable):
		a.log.Warn("key store cannot be written to", "error", err)
		w.Header().Set("Retry-After", "1")
		writeError(w, 503, "overloaded", "", err.Error()+"; try again")
	case errors.Is(err, keys.ErrConflict):
		writeError(w, 409, "conflict", "", err.Error()+"; look at it, and try again")
	case errors.Is(err, errBody):
		writeError(w, 400, "invalid_json", "", err.Error())
	default:
		a.log.Error("key store failed", "error", err)
		writeError(w, 500, "internal", "", "the key store failed; the log says why")
	}
}

var errBody = errors.New("the body must be one JSON object")

func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return nil, errBody // it broke off
	}
	return body, err
}

func readChange(w http.ResponseWriter, r *http.Request, s *keys.Spec) error {
	body, err := readBody(w, r, maxBody)
	if err != nil {
		return err
	}
	return change(s, body)
}

// field is one that a body may have: where its value goes, and what it must be. null is
// allowed where it clears something.
type field struct {
	into any
	want string
	null bool
}

// change puts the fields of a JSON object into s: an absent one stays, a null clears. After
// an error s is not to be used.
func change(s *keys.Spec, body []byte) error {
	var given keys.Spec
	var limits json.RawMessage
	has, err := decode("", body, map[string]field{
		"name":       {into: &given.Name, want: "a string"},
		"note":       {into: &given.Note, want: "a string"},
		"expires_at": {into: &given.ExpiresAt, want: `a time such as "2027-01-31T00:00:00Z", or null`, null: true},
		"disabled":   {into: &given.Disabled, want: "true or false"},
		"models":     {into: &given.Models, want: "a list of model names"},
		"limits":     {into: &limits, want: "an object, or null", null: true},
	})
	if err != nil {
		return err
	}
	if has["name"] {
		s.Name = given.Name
	}
	if has["note"] {
		s.Note = given.Note
	}
	if has["expires_at"] {
		s.ExpiresAt = given.ExpiresAt
	}
	if has["disabled"] {
		s.Disabled = given.Disabled
	}
	if has["models"] {
		s.Models = given.Models
	}
	if !has["limits"] {
		return nil
	}
	if string(limits) == "null" {
		s.Limits = keys.Limits{}
		return nil
	}
	return changeLimits(&s.Limits, limits)
}

func changeLimits(l *keys.Limits, body []byte) error {
	given := l.Clone()
	fields := map[string]field{"period": {into: &given.Period, want: `a duration such as "60s"`}}
	for _, f := range given.Fields() {
		fields[f.Name] = field{into: f.Into, want: f.Want, null: true}
	}
	has, err := decode("limits.", body, fields)
	if err != nil {
		return err
	}
	if !has["period"] && !given.Periodic() {
		given.Period = nil // it goes with the last limit that has one
	}
	*l = given
	return nil
}

// decode reads a JSON object field by field in its order, so that an error names its field,
// and returns which fields there are.
func decode(prefix string, body []byte, fields map[string]field) (map[string]bool, error) {
	if !json.Valid(body) || len(bytes.TrimSpace(body)) == 0 || bytes.TrimSpace(body)[0] != '{' {
		if prefix != "" {
			return nil, &keys.FieldError{Field: prefix[:len(prefix)-1], Message: "must be an object, or null"}
		}
		return nil, errBody
	}
	d := json.NewDecoder(bytes.NewReader(body))
	_, _ = d.Token() // the brace; the body is valid
	has := map[string]bool{}
	for d.More() {
		token, _ := d.Token()
		name, _ := token.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errBody
		}
		bad := func(message string) error {
			return &keys.FieldError{Field: prefix + name[:min(len(name), maxFieldShown)], Message: message}
		}
		f, known := fields[name]
		switch {
		case !known:
			return nil, bad("is not a known field")
		case has[name]:
			return nil, bad("is there twice")
		case string(value) == "null" && !f.null, json.Unmarshal(value, f.into) != nil:
			return nil, bad("must be " + f.want)
		}
		has[name] = true
	}
	return has, nil
}
