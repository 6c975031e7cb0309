package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/valyala/fastjson"
)

const (
	// maxGateway bounds the gateway object: what is parsed takes many times its bytes.
	maxGateway = 16 << 10
	// keepParsed is how much a parser may have read and still be kept for the next request.
	keepParsed = 4 << 10
)

// readGateway reads our extension field. null is as good as none, for it and for what is in it.
func (r *request) readGateway(value []byte) *failure {
	switch {
	case bytes.Equal(value, null):
		return nil
	case value[0] != '{':
		return badField("", "must be an object")
	case len(value) > maxGateway:
		return badField("", "must have at most %d bytes", maxGateway)
	case len(value) > keepParsed:
		defer func() { r.parser = fastjson.Parser{} }()
	}
	v, err := r.parser.ParseBytes(value)
	if err != nil {
		return badField("", "cannot be read")
	}
	var fail *failure
	var seen [len(gatewayFields)]bool
	v.GetObject().Visit(func(key []byte, v *fastjson.Value) {
		if fail != nil {
			return
		}
		field := slices.Index(gatewayFields[:], borrowString(key))
		switch {
		case field < 0:
			fail = badField(cut(key), "is not known; known are models, max_retries, timeout and first_byte_timeout")
		case seen[field]:
			fail = badField(gatewayFields[field], "is there twice")
		case v.Type() != fastjson.TypeNull:
			fail = r.fields.readGatewayField(gatewayFields[field], v)
		}
		seen[max(field, 0)] = true
	})
	return fail
}

// gatewayFields are what the gateway object may have.
var gatewayFields = [...]string{"models", "max_retries", "timeout", "first_byte_timeout"}

func (f *fields) readGatewayField(field string, v *fastjson.Value) *failure {
	switch field {
	case "models":
		return f.readSequence(v)
	case "max_retries":
		n, err := v.Int()
		if err != nil || n < 0 {
			return badField(field, "must be a whole number, 0 or more")
		}
		f.maxRetries = n
		return nil
	case "timeout":
		return readDuration(field, v, &f.timeout)
	default:
		return readDuration(field, v, &f.firstByteTimeout)
	}
}

// readDuration reads a duration above zero. No sensible one is long.
func readDuration(field string, v *fastjson.Value, into *time.Duration) *failure {
	text, err := v.StringBytes()
	if err == nil {
		*into, err = time.ParseDuration(borrowString(text[:min(len(text), 64)])) // its error, which quotes it, is dropped
	}
	if err != nil || len(text) > 64 || *into <= 0 {
		return badField(field, `must be a duration above zero such as "30s"`)
	}
	return nil
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

// badField refuses a field of the gateway object, or the object itself.
func badField(field, format string, args ...any) *failure {
	param := "gateway"
	if field != "" {
		param += "." + field
	}
	return refusal(invalidGatewayField, param, "%s %s", param, fmt.Sprintf(format, args...))
}
