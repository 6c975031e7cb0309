package proxy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"sluice/jsontext"
	"sluice/keys"
)

// The paths that need no upstream.

// hello answers the first look of clients that ask whether somebody is there.
func (r *request) hello() {
	r.probe = true
	r.answerJSON(200, map[string]string{"name": "sluice", "message": "an LLM API gateway; GET /v1/models lists the models"})
}

func (r *request) healthz() {
	r.probe = true
	r.answerJSON(200, map[string]string{"status": "ok"})
}

func (r *request) readyz() {
	r.probe = true
	if !r.proxy.Ready() {
		f := refusal(shuttingDown, "", "the gateway is draining")
		f.retryAfter = time.Second
		r.refuse(f)
		return
	}
	answer := map[string]string{"status": "ready"}
	if r.ctx.QueryArgs().Has("verbose") {
		answer["keys"] = r.proxy.StoreState()
	}
	r.answerJSON(200, answer)
}

// StoreState says in words how the keys' store is doing.
func (p *Proxy) StoreState() string {
	switch s, shared := p.keys.Sharing(); {
	case !shared:
		return "embedded"
	case s.Answers:
		return fmt.Sprintf("shared by %d nodes", s.Nodes)
	case s.Strict:
		return fmt.Sprintf("the shared store has not answered for %s; keys with a limit get 503 for its period (keys.without_store: strict)", s.Silent.Round(time.Second))
	default:
		return fmt.Sprintf("the shared store has not answered for %s; this node admits its share of each limit, which %d nodes have (keys.without_store: share)", s.Silent.Round(time.Second), s.Nodes)
	}
}

// model is a model in OpenAI's shape.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func (r *request) model(id string) model {
	return model{ID: id, Object: "model", Created: r.snapshot.loaded.Unix(), OwnedBy: "sluice"}
}

func (r *request) listModels() {
	if f := r.authenticate(); f != nil {
		r.refuse(f)
		return
	}
	data := []model{}
	for _, id := range slices.Sorted(maps.Keys(r.snapshot.set.Models)) {
		if len(r.snapshot.set.Models[id].Targets) > 0 && r.key.Spec().Allows(id) {
			data = append(data, r.model(id))
		}
	}
	r.answerJSON(200, map[string]any{"object": "list", "data": data})
}

func (r *request) showModel() {
	if f := r.authenticate(); f != nil {
		r.refuse(f)
		return
	}
	id, _ := r.ctx.UserValue("id").(string)
	if decoded, err := url.PathUnescape(id); err == nil {
		id = decoded
	}
	switch m := r.snapshot.set.Models[id]; {
	case m == nil || !r.key.Spec().Allows(id):
		r.refuse(refusal(modelNotFound, "model", "no model of this key is called %s; GET /v1/models lists them", shown([]byte(id))))
		return
	case len(m.Targets) == 0:
		r.refuse(refusal(modelNotFound, "model", "%s", lacksCredential(m)))
		return
	}
	r.answerJSON(200, r.model(id))
}

// remaining is what a key may still do now, as JSON: of each limit that it has the amount, and of
// those that are forgotten after a period, when nothing of them is used.
func (r *request) remaining() json.RawMessage {
	b, now := []byte{'{'}, r.proxy.clock()
	member := func(name string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(jsontext.AppendString(b, name), ':')
	}
	for i := range r.key.Meters() {
		m := &r.key.Meters()[i]
		if state, limited := m.Left(now); limited {
			member(m.Name())
			b = strconv.AppendInt(b, state.Remaining, 10)
			member("reset_" + m.Name())
			b = jsontext.AppendString(b, string(appendDuration(nil, state.Reset)))
		}
	}
	if limit := r.key.Gate.Limit(); limit > 0 {
		member("concurrent")
		b = strconv.AppendInt(b, max(0, limit-r.key.Gate.InFlight()), 10)
	}
	return append(b, '}')
}

func (r *request) showKey() {
	if f := r.authenticate(); f != nil {
		r.refuse(f)
		return
	}
	spec := r.key.Spec()
	r.answerJSON(200, struct {
		ID        string          `json:"id"`
		Name      string          `json:"name"`
		Models    []string        `json:"models"`
		ExpiresAt *time.Time      `json:"expires_at"`
		Limits    keys.Limits     `json:"limits"`
		Remaining json.RawMessage `json:"remaining"`
	}{spec.ID, spec.Name, spec.Models, spec.ExpiresAt, spec.Limits, r.remaining()})
}

// answerJSON answers without an upstream.
func (r *request) answerJSON(status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("BUG: an answer of our own is not JSON: " + err.Error())
	}
	r.status = status
	r.ctx.SetStatusCode(status)
	r.ctx.SetContentType("application/json")
	r.setOwnHeaders()
	r.ctx.SetBody(append(body, '\n'))
	if r.ctx.RequestBodyStream() != nil {
		r.leaveBody()
	}
}
