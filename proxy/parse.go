package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/valyala/fastjson"
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
	repeated, err := scan(r.body, &r.json.parser, &f.members)
	if errors.Is(err, errTooNested) {
		return refusal(invalidJSON, "", "the body is nested deeper than %d", maxNesting)
	}
	if err != nil {
		return refusal(invalidJSON, "", "the body is not one valid JSON object: %s", whyNotJSON(r.body))
	}
	if repeated {
		return refusal(invalidRequest, "", "model, model_id, stream and gateway must each be there once at most")
	}
	if fail := r.readModel(); fail != nil {
		return fail
	}
	if m := f.members.find(nameStream); m != nil {
		switch string(r.value(m)) {
		case "true":
			f.stream = true
		case "false":
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

// whyNotJSON explains to a person. It is the slow way, taken only for a refusal.
func whyNotJSON(body []byte) string {
	var v json.RawMessage
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(body, &v); {
	case errors.As(err, &syntax):
		return fmt.Sprintf("%s at byte %d", syntax, syntax.Offset)
	case len(bytes.TrimSpace(body)) == 0:
		return "it is empty"
	}
	return "it is not an object"
}

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
		value, ok := r.text(r.value(m))
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

// maxParsed bounds what is parsed of a client's body: a parsed value takes many times its bytes.
const maxParsed = 64 << 10

// text decodes a JSON string. The result is the body's own bytes where there are no
// escapes.
func (r *request) text(value []byte) ([]byte, bool) {
	if value[0] != '"' {
		return nil, false
	}
	if inner := value[1 : len(value)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return inner, true
	}
	v, err := r.json.parser.ParseBytes(value)
	if err != nil {
		return nil, false
	}
	decoded, err := v.StringBytes()
	return bytes.Clone(decoded), err == nil
}

// readGateway reads our extension field.
func (r *request) readGateway(value []byte) *failure {
	if len(value) > maxParsed {
		return badField("", "must have at most %d bytes", maxParsed)
	}
	v, err := r.json.parser.ParseBytes(value)
	if err != nil {
		return badField("", "cannot be read")
	}
	object, err := v.Object()
	if err != nil {
		return badField("", "must be an object")
	}
	f, known := &r.fields, 0
	if v := object.Get("models"); v != nil {
		known++
		if fail := f.readSequence(v); fail != nil {
			return fail
		}
	}
	if v := object.Get("max_retries"); v != nil {
		known++
		n, err := v.Int()
		if err != nil || n < 0 {
			return badField("max_retries", "must be a whole number, 0 or more")
		}
		f.maxRetries = n
	}
	for _, d := range [...]struct {
		name string
		into *time.Duration
	}{{"timeout", &f.timeout}, {"first_byte_timeout", &f.firstByteTimeout}} {
		v := object.Get(d.name)
		if v == nil {
			continue
		}
		known++
		text, err := v.StringBytes()
		if *d.into, err = parseDuration(text, err); err != nil || *d.into <= 0 {
			return badField(d.name, `must be a duration above zero such as "30s"`)
		}
	}
	if object.Len() != known {
		return unknownField(object)
	}
	return nil
}

func parseDuration(text []byte, err error) (time.Duration, error) {
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(borrowString(text)) // its error, which quotes it, is dropped
}

// badField refuses a field of the gateway object, or the object itself.
func badField(field, format string, args ...any) *failure {
	param := "gateway"
	if field != "" {
		param += "." + field
	}
	return refusal(invalidGatewayField, param, "%s %s", param, fmt.Sprintf(format, args...))
}

// unknownField says which field of the gateway object should not be there.
func unknownField(object *fastjson.Object) (fail *failure) {
	seen := map[string]bool{}
	object.Visit(func(key []byte, _ *fastjson.Value) {
		field := cut(key)
		switch field {
		case "models", "max_retries", "timeout", "first_byte_timeout":
			if seen[field] && fail == nil {
				fail = badField(field, "is there twice")
			}
		default:
			if fail == nil {
				fail = badField(field, "is not known; known are models, max_retries, timeout and first_byte_timeout")
			}
		}
		seen[field] = true
	})
	return fail
}

func (f *fields) readSequence(v *fastjson.Value) *failure {
	items, err := v.Array()
	if err != nil || len(items) < 1 || len(items) > maxSequence {
		return badField("models", "must be a list of 1 to %d model names", maxSequence)
	}
	f.models = f.models[:0]
	for i, item := range items {
		model, err := item.StringBytes()
		if err != nil || len(model) == 0 {
			return badField(fmt.Sprintf("models[%d]", i), "must be a model's name")
		}
		f.models = append(f.models, string(model))
	}
	return nil
}

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
