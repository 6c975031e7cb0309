package proxy

import (
	"bytes"
	"errors"

	"sluice/jsontext"
	"sluice/pool"
)

// Some upstreams answer with 200 before they know whether they can, and say in the body that they
// cannot. Such an answer is a failed attempt, and where it says its status it is treated as that.

// toldError is an error that an upstream told inside a 2xx.
type toldError struct {
	status int    // 4xx or 5xx; 0 where it says none
	object []byte // as it was told
}

func (e *toldError) Error() string { return "a 2xx with an error in it" }

// top is what an answer's object says of the answer, as it is written.
type top struct {
	object []byte
	err    []byte // its error
	typ    []byte // its type
	usage  []byte
	// gateways is how many members are called so.
	gateways int
	// choices are OpenAI's answers.
	choices []byte
}

// topOf walks over a JSON object once. whole is false for what is none, or has more than one behind it.
func topOf(object []byte) (t top, whole bool) {
	t.object = object
	w := jsontext.MembersOf(object)
	for w.Next() {
		name := w.Name()
		if m := t.member(name); m != nil {
			*m = w.Value()
		} else if string(name) == "gateway" {
			t.gateways++
		}
	}
	return t, w.Whole()
}

// member is where the value of the member with that name goes; nil if it is none that is looked for.
func (t *top) member(name []byte) *[]byte {
	switch string(name) {
	case "error":
		return &t.err
	case "type":
		return &t.typ
	case "usage":
		return &t.usage
	case "choices":
		return &t.choices
	}
	return nil
}

// failed reports whether the object says that there is no answer: it has an error, or is of that type.
// status is the HTTP status that the error says, 0 without one.
func (t *top) failed() (status int, is bool) {
	hasError, typed := isError(t.err), jsontext.IsText(t.typ, "error")
	if hasError {
		status = statusIn(t.err)
	}
	if status == 0 && (hasError || typed) {
		status = statusIn(t.object)
	}
	return status, hasError || typed
}

// told is failed for the object that an event's data may be. Most have no such name in them.
func told(data []byte) (status int, is bool) {
	if !jsontext.MayName(data, errorMember) {
		return 0, false
	}
	if t, whole := topOf(data); whole {
		return t.failed()
	}
	return 0, false
}

// isError reports whether the value of a member called error is one. Some upstreams say with false or
// an empty text that there is none.
func isError(value []byte) bool {
	return !jsontext.IsNull(value) && value[0] != 'f' && !jsontext.IsText(value, "")
}

// statusIn is the HTTP status that an error object says, 0 for none.
func statusIn(object []byte) (status int) {
	for w := jsontext.MembersOf(object); w.Next(); {
		said := 0
		switch string(w.Name()) {
		case "code", "status":
			said = errorStatus(w.Value())
		case "type":
			said = statusOfType(w.Value())
		}
		if status == 0 || said != 0 && string(w.Name()) != "type" {
			status = said
		}
	}
	return status
}

// errorStatus is the status that value is, as a number or in quotes; 0 for what is none of an error.
func errorStatus(value []byte) int {
	value = bytes.Trim(value, `"`)
	if n := tokenCount(value); len(value) == 3 && 400 <= n && n <= 599 {
		return int(n)
	}
	return 0
}

// statusOfType is the status of an error type (docs.anthropic.com, "Errors"; OpenAI has some of them).
func statusOfType(value []byte) int {
	if len(value) == 0 || value[0] != '"' {
		return 0
	}
	switch string(jsontext.Plain(value)) {
	case "invalid_request_error":
		return 400
	case "authentication_error":
		return 401
	case "permission_error":
		return 403
	case "not_found_error":
		return 404
	case "request_too_large":
		return 413
	case "rate_limit_error":
		return 429
	case "api_error":
		return 500
	case "overloaded_error":
		return 529
	}
	return 0
}

var (
	errBlank    = &pool.Error{Cause: pool.NoAnswer, Err: errors.New("a 2xx without a body")}
	errNotText  = &pool.Error{Cause: pool.NoAnswer, Err: errors.New("a 2xx whose JSON is not whole")}
	errNoChoice = &pool.Error{Cause: pool.NoAnswer, Err: errors.New("a 2xx whose choices are empty")}
	errNoText   = &pool.Error{Cause: pool.NoAnswer, Err: errors.New("a stream of a terminator alone")}
)

// checkAnswer looks at a 2xx that has been read to its end, and takes its usage. The error is of one that is
// no answer.
func (r *request) checkAnswer(a *attempt, body []byte, rd *reading) error {
	first := jsontext.SkipSpace(body, 0)
	switch {
	case a.status == 204 || a.status == 205:
		return nil
	case first == len(body):
		if rd.json || r.route.json {
			return errBlank
		}
		return nil
	case !rd.isJSON():
		return r.checkOther(a, body, rd)
	}
	t, whole := topOf(body)
	if t.gateways > 1 && isObject(body) {
		blankGateways(body)
	}
	if !whole { // an array, an empty object, or what is nested too deep to follow?
		if rd.json && !wholeJSON(body[first:]) {
			return errNotText
		}
		r.guess(nil, int64(len(body)-rd.added))
		return nil
	}
	if err := r.judge(a, &t, body); err != nil {
		return err
	}
	if r.tokens.limited && !r.tokens.usage.known() {
		r.guess(nil, bytesPerToken*promptTokens(body[max(0, rd.added):]))
	}
	return nil
}

// checkOther is checkAnswer for a body that is not JSON as it stands. One that is so only once it is decoded
// is judged alike.
func (r *request) checkOther(a *attempt, body []byte, rd *reading) error {
	i := r.inspect(body)
	if i == nil {
		r.guess(nil, int64(len(body)-rd.added))
		return nil
	}
	defer i.close()
	i.see(body)
	err := i.end()
	switch {
	case err != nil:
		err = &pool.Error{Cause: pool.ResponseBroken, Err: err}
	case rd.whole && i.whole() && i.skim.objects == 1:
		err = r.judge(a, &i.skim.top, body)
	}
	if err != nil {
		r.tokens.usage, r.tokens.sent = usage{}, 0
		return err
	}
	r.guess(i, int64(len(body)-rd.added))
	return nil
}

// judge takes the usage that the answer's object has. The error is of an object that says that there is no
// answer.
func (r *request) judge(a *attempt, t *top, body []byte) error {
	if status, failed := t.failed(); failed {
		return &toldError{status, body}
	}
	if r.route.choices && t.choices != nil && jsontext.IsEmpty(t.choices) {
		a.empty = true
		return errNoChoice
	}
	r.tokens.usage.read(t.usage)
	return nil
}

// wholeJSON reports whether text is one JSON value. One that is nested too deep to follow counts as
// whole.
func wholeJSON(text []byte) bool {
	end, err := jsontext.ValueEnd(text, 0)
	return err == jsontext.ErrTooNested || err == nil && jsontext.SkipSpace(text, end) == len(text)
}

// toldAnswer makes of an error that a 2xx told an answer with the status that it says, as if that had been
// the answer's, and one of an attempt without an answer where it says none. Other errors it returns as they are.
func (r *request) toldAnswer(a *attempt, err error) (answer, error) {
	var e *toldError
	if !errors.As(err, &e) {
		return answer{}, err
	}
	switch e.status {
	case 0:
		return answer{}, &pool.Error{Cause: pool.ErrorEvent, Err: e}
	case 401, 402, 403:
		return answer{}, &pool.Error{Cause: pool.CredentialRefused, Err: errStatus(e.status)}
	}
	if cause, aborted := r.exchange.Aborted(); aborted && cause.Ended() {
		return answer{}, &pool.Error{Cause: cause, Err: e}
	}
	a.status = e.status
	return answer{form: complete, body: e.object, told: true}, nil
}

// annotated is a JSON object of an event with the gateway's member in it.
func (r *request) annotated(object []byte) []byte {
	r.scratch = append(r.appendMember(r.scratch[:0]), ',')
	room := len(r.scratch)
	buf := append(make([]byte, room, room+len(object)), object...)
	rest, may := withoutGateway(buf[room:], true)
	return annotate(buf[len(buf)-len(rest)-room:], room, r.scratch, may)
}
