package proxy

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// gatewayFields are what the gateway object may have.
var gatewayFields = [...]string{"models", "max_retries", "timeout", "first_byte_timeout"}

// readGateway reads our extension field. null is as good as none, for it and for what is in it.
func (f *fields) readGateway(value []byte) *failure {
	switch {
	case bytes.Equal(value, null):
		return nil
	case value[0] != '{':
		return badField("", "must be an object")
	case len(value) > maxParsed:
		return badField("", "must have at most %d bytes", maxParsed)
	}
	var seen [len(gatewayFields)]bool
	w := within(value)
	for {
		key, v := w.next()
		if v == nil {
			return nil
		}
		text, _ := textOf(key)
		field := gatewayField(text)
		if field < 0 {
			return badField(cut(text), "is not known; known are models, max_retries, timeout and first_byte_timeout")
		}
		if seen[field] {
			return badField(gatewayFields[field], "is there twice")
		}
		seen[field] = true
		if bytes.Equal(v, null) {
			continue
		}
		if fail := f.readGatewayField(gatewayFields[field], v); fail != nil {
			return fail
		}
	}
}

// gatewayField is the place of the field called text in gatewayFields, or -1.
func gatewayField(text []byte) int {
	for i, field := range gatewayFields {
		if string(text) == field {
			return i
		}
	}
	return -1
}

func (f *fields) readGatewayField(field string, value []byte) *failure {
	var ok bool
	switch field {
	case "models":
		return f.readSequence(value)
	case "max_retries":
		n, err := strconv.Atoi(borrowString(value))
		if err != nil || n < 0 {
			return badField(field, "must be a whole number, 0 or more")
		}
		f.maxRetries = n
		return nil
	case "timeout":
		f.timeout, ok = durationOf(value)
	default:
		f.firstByteTimeout, ok = durationOf(value)
	}
	if !ok {
		return badField(field, `must be a duration above zero such as "30s"`)
	}
	return nil
}

// durationOf reads a duration above zero. No sensible one is long.
func durationOf(value []byte) (time.Duration, bool) {
	text, ok := textOf(value)
	if !ok || len(text) > 64 {
		return 0, false
	}
	d, err := time.ParseDuration(borrowString(text)) // its error, which quotes it, is dropped
	return d, err == nil && d > 0
}

func (f *fields) readSequence(value []byte) *failure {
	f.models = f.models[:0]
	if value[0] == '[' {
		w := within(value)
		for i := 0; i <= maxSequence; i++ {
			_, item := w.next()
			if item == nil {
				break
			}
			model, ok := textOf(item)
			if !ok || len(model) == 0 {
				return badField(fmt.Sprintf("models[%d]", i), "must be a model's name")
			}
			f.models = append(f.models, string(model))
		}
	}
	if len(f.models) < 1 || len(f.models) > maxSequence {
		return badField("models", "must be a list of 1 to %d model names", maxSequence)
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
