package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/valyala/fastjson"

	"sluice/pool"
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
	if f := r.readBody(); f != nil {
		return f
	}
	if encoding := r.ctx.Request.Header.ContentEncoding(); len(encoding) > 0 && !bytes.EqualFold(encoding, identity) {
		return refusal(invalidRequest, "", "the body must be sent without Content-Encoding")
	}
	if f := r.readFields(); f != nil {
		return f
	}
	return r.findModels()
}

// firstRead is how much room a body gets before any of it that is not yet here.
const firstRead = 16 << 10

// readBody reads the whole body. Memory follows the bytes that arrive, not the length that
// was announced.
func (r *request) readBody() *failure {
	limit := int(r.snapshot.config.Limits.Body)
	announced := r.ctx.Request.Header.ContentLength()
	if announced > limit {
		return tooLarge(limit)
	}
	stream := r.ctx.RequestBodyStream()
	if stream == nil {
		r.bodyRead = true
		return nil
	}
	r.body = r.body[:0]
	for {
		if len(r.body) == cap(r.body) {
			room := max(firstRead, 2*cap(r.body))
			if announced >= 0 {
				room = min(room, announced+1) // one more, to see the end without growing
			}
			bigger := make([]byte, len(r.body), max(room, len(r.body)+1))
			copy(bigger, r.body)
			r.body = bigger
		}
		n, err := stream.Read(r.body[len(r.body):cap(r.body)])
		r.body = r.body[:len(r.body)+n]
		switch {
		case len(r.body) > limit:
			return tooLarge(limit)
		case err == io.EOF:
			r.bodyRead = true
			return nil
		case err != nil && isTimeout(err):
			return refusal(requestTimeout, "", "the body did not arrive within timeouts.client.body")
		case err != nil:
			return refusal(invalidRequest, "", "the body broke off, or its chunks are malformed")
		}
	}
}

func tooLarge(limit int) *failure {
	return refusal(bodyTooLarge, "", "the body is larger than %d bytes (limits.body)", limit)
}

// readFields reads the members that concern the gateway.
func (r *request) readFields() *failure {
	f := &r.fields
	f.maxRetries = -1
	repeated, err := scan(r.body, &r.json.parser, &f.members)
	if errors.Is(err, errTooNested) {
		return refusal(invalidJSON, "", "the body is nested deeper than %d", maxNesting)
	}
	if err == nil {
		err = validate(r.body)
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
		field := string(key)
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

// findModels looks the models of the sequence up and holds them against the key's list,
// all before anything is sent.
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
	r.models = append(r.models, model)
	return nil
}

// shown is a client's text, quoted and short.
func shown(text []byte) string {
	const most = 100
	if len(text) > most {
		text = append(bytes.Clone(text[:most]), "…"...)
	}
	return fmt.Sprintf("%q", text)
}

// rewrite appends the body for target to dst: the target's name for the model in the
// field that the client used (or in the target's model_field), without the gateway object.
// Everything else is copied as it stands.
func (r *request) rewrite(dst []byte, target *pool.Target) []byte {
	m := &r.fields.members
	dst = append(dst, '{')
	comma := false
	add := func(parts ...[]byte) {
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		for _, p := range parts {
			dst = append(dst, p...)
		}
	}
	if m.find(nameModel) == nil && m.find(nameModelID) == nil {
		field := target.ModelField
		if field == nil {
			field = modelField
		}
		add(field, colon, target.Name)
	}
	from, before := m.first, -1 // where the members not yet copied begin, and the last one's index
	placed := false
	for i := range m.list[:m.n] {
		own := &m.list[i]
		if own.name == nameStream {
			continue
		}
		if own.index > before+1 {
			add(r.body[from:own.prevEnd])
		}
		from, before = own.nextStart, own.index
		switch {
		case own.name == nameGateway:
		case target.ModelField == nil:
			add(r.body[own.keyStart:own.keyEnd], colon, target.Name)
		case !placed:
			add(target.ModelField, colon, target.Name)
			placed = true
		}
	}
	if before < m.count-1 {
		add(r.body[from:m.last])
	}
	return append(dst, '}')
}

var (
	identity   = []byte("identity")
	modelField = []byte(`"model"`)
	colon      = []byte{':'}
)
