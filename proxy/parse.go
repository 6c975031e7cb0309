package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/jsontext"
)

// fields is what the body says to the gateway.
type fields struct {
	members members
	model   []byte // the public name; empty without one
	stream  bool

	// of the gateway object; zero is "not said"
	models           []string
	maxRetries       int // -1 without one
	timeout          time.Duration
	firstByteTimeout time.Duration
}

// maxSequence is how many models a client may name.
const maxSequence = 16

// parse reads the body and what it says to the gateway, and finds the models.
func (r *request) parse() *failure {
	if f := r.checkMedia(); f != nil {
		return f
	}
	if f := r.readBody(); f != nil {
		return f
	}
	if f := r.readFields(); f != nil {
		return f
	}
	return r.findModels()
}

// readFields reads the members that concern the gateway.
func (r *request) readFields() *failure {
	f := &r.fields
	f.maxRetries = -1
	err := scan(r.body, r.snapshot.modelFields, &f.members)
	if errors.Is(err, jsontext.ErrTooNested) {
		return refusal(invalidJSON, "", "the body is nested deeper than %d", jsontext.MaxNesting)
	}
	if err != nil {
		return refusal(invalidJSON, "", "the body is not one valid JSON object: %s", whyNotJSON(r.body))
	}
	if fail := r.checkNames(); fail != nil {
		return fail
	}
	if fail := r.readModel(); fail != nil {
		return fail
	}
	if m := f.members.find(nameStream); m != nil {
		switch string(r.value(m)) {
		case "true":
			f.stream = true
		case "false", "null":
		default:
			return refusal(invalidRequest, "stream", "stream must be true or false")
		}
	}
	if m := f.members.find(nameGateway); m != nil {
		if fail := r.readGateway(r.value(m)); fail != nil {
			return fail
		}
	}
	return nil
}

func (r *request) value(m *member) []byte { return r.body[m.valueStart:m.valueEnd] }

// checkNames refuses top-level names in which an upstream could read something else than the
// gateway has read.
func (r *request) checkNames() *failure {
	m := &r.fields.members
	if n := m.repeated(); n != nameOther {
		text := nameTexts[n]
		return refusal(invalidRequest, text, "%s is in the body more than once; it must be there once at most", text)
	}
	if m.odd.why == notOdd {
		return nil
	}
	text := r.body[m.odd.start+1 : m.odd.end-1]
	if len(text) <= maxParsed {
		text, _ = jsontext.Text(r.body[m.odd.start:m.odd.end])
	}
	switch m.odd.why {
	case oddCase:
		like := nameTexts[m.odd.name]
		return refusal(invalidRequest, like, "the body has %s, which some upstreams read as %s; write %s", shown(text), like, like)
	case oddField:
		return refusal(invalidRequest, cut(text),
			"%s is the field in which the gateway names the model to an upstream (model_field); leave it out and send model", shown(text))
	}
	return refusal(invalidRequest, "", "the name %s in the body has a NUL, a byte order mark, half a surrogate pair or bytes that are not UTF-8; names at the top level must have none", shown(text))
}

// whyNotJSON explains to a person. It is the slow way, taken only for a refusal.
func whyNotJSON(body []byte) string {
	var v anyJSON
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(body, &v); {
	case errors.As(err, &syntax):
		return fmt.Sprintf("%s at byte %d", syntax, syntax.Offset)
	case len(bytes.TrimSpace(body)) == 0:
		return "it is empty"
	}
	return "it is not an object"
}

// anyJSON is a value of which encoding/json keeps nothing.
type anyJSON struct{}

func (*anyJSON) UnmarshalJSON([]byte) error { return nil }

// readModel reads model and model_id, which must agree.
func (r *request) readModel() *failure {
	for _, which := range [...]struct {
		name name
		text string
	}{{nameModelID, "model_id"}, {nameModel, "model"}} {
		m := r.fields.members.find(which.name)
		if m == nil {
			continue
		}
		if len(r.value(m)) > maxParsed {
			return refusal(invalidRequest, which.text, "%s must have at most %d bytes", which.text, maxParsed)
		}
		value, ok := jsontext.Text(r.value(m))
		if !ok {
			return refusal(invalidRequest, which.text, "%s must be a string", which.text)
		}
		if len(value) == 0 {
			return refusal(modelRequired, which.text, "%s must not be empty", which.text)
		}
		if r.fields.model != nil && !bytes.Equal(r.fields.model, value) {
			return refusal(invalidRequest, which.text, "model and model_id name different models; send one of them")
		}
		r.fields.model = value
	}
	return nil
}

// maxParsed bounds what is decoded of a client's body, and so copied, which limits.memory does not
// count.
const maxParsed = 64 << 10

// findModels looks the models up that the client asks for, and holds them against the key's
// list, all before anything is sent. A model's configured fallbacks follow unless the client
// named a sequence of its own; of those the key may not use, none is tried.
func (r *request) findModels() *failure {
	f := &r.fields
	if len(f.model) == 0 && len(f.models) == 0 {
		return refusal(modelRequired, "model", "the body names no model; set model, or model_id")
	}
	if len(f.model) > 0 {
		listed := false
		for _, m := range f.models {
			listed = listed || m == string(f.model)
		}
		if !listed {
			if fail := r.addModel(f.model); fail != nil {
				return fail
			}
		}
	}
	for _, m := range f.models {
		if fail := r.addModel([]byte(m)); fail != nil {
			return fail
		}
	}
	if len(f.models) > 0 {
		return nil
	}
	spec := r.key.Spec()
	for _, m := range r.models[0].Fallbacks {
		if spec.Allows(m.Name) {
			r.models = append(r.models, m)
		}
	}
	return nil
}

func (r *request) addModel(public []byte) *failure {
	model := r.snapshot.set.Models[string(public)]
	if model == nil {
		return refusal(modelNotFound, "model", "no model is called %s; GET /v1/models lists those of this key", shown(public))
	}
	if !r.key.Spec().Allows(model.Name) {
		return refusal(modelNotAllowed, "model", "this key may not use the model %s", model.Name)
	}
	if !slices.Contains(r.models, model) { // named twice is tried once: retries have their own rules
		r.models = append(r.models, model)
	}
	return nil
}
