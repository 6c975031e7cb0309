package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/client"
	"sluice/jsontext"
	"sluice/pool"
)

// kind is a row of the contract's error table.
type kind uint8

const (
	invalidJSON kind = iota
	modelRequired
	invalidGatewayField
	invalidRequest
	invalidAPIKey
	modelNotAllowed
	modelNotFound
	notFound
	methodNotAllowed
	requestTimeout
	bodyTooLarge
	unsupportedMedia
	headTooLarge
	rateLimitExceeded
	upstreamLimited
	upstreamError
	upstreamStreamBroken
	upstreamTimeout
	overloaded
	noHealthyUpstream
	shuttingDown
	internal
	versionNotSupported
	upgradeNotSupported
	kinds
)

// anthropic is what Anthropic calls the type, where it differs.
var kindTable = [kinds]struct {
	status               int
	typ, code, anthropic string
	fault                string // whose it is, and which
}{
	invalidJSON:          {400, "invalid_request_error", "invalid_json", "", "caller_invalid"},
	modelRequired:        {400, "invalid_request_error", "model_required", "", "caller_invalid"},
	invalidGatewayField:  {400, "invalid_request_error", "invalid_gateway_field", "", "caller_invalid"},
	invalidRequest:       {400, "invalid_request_error", "invalid_request", "", "caller_invalid"},
	invalidAPIKey:        {401, "authentication_error", "invalid_api_key", "", "policy_key"},
	modelNotAllowed:      {403, "permission_error", "model_not_allowed", "", "policy_model"},
	modelNotFound:        {404, "invalid_request_error", "model_not_found", "not_found_error", "caller_unknown_model"},
	notFound:             {404, "invalid_request_error", "not_found", "not_found_error", "caller_invalid"},
	methodNotAllowed:     {405, "invalid_request_error", "method_not_allowed", "", "caller_invalid"},
	requestTimeout:       {408, "invalid_request_error", "request_timeout", "", "caller_slow"},
	bodyTooLarge:         {413, "invalid_request_error", "body_too_large", "request_too_large", "policy_size"},
	unsupportedMedia:     {415, "invalid_request_error", "unsupported_media_type", "", "caller_invalid"},
	headTooLarge:         {431, "invalid_request_error", "head_too_large", "", "policy_size"},
	rateLimitExceeded:    {429, "rate_limit_error", "rate_limit_exceeded", "", "policy_limit"},
	upstreamLimited:      {429, "rate_limit_error", "rate_limit_exceeded", "", "upstream_limited"},
	upstreamError:        {502, "upstream_error", "upstream_error", "api_error", "upstream_failed"},
	upstreamStreamBroken: {502, "upstream_error", "upstream_stream_broken", "api_error", "upstream_stream_broken"},
	upstreamTimeout:      {504, "upstream_error", "upstream_timeout", "timeout_error", "upstream_timeout"},
	overloaded:           {503, "overloaded_error", "overloaded", "", "gateway_overloaded"},
	noHealthyUpstream:    {503, "overloaded_error", "no_healthy_upstream", "", "upstream_unhealthy"},
	shuttingDown:         {503, "overloaded_error", "shutting_down", "", "gateway_shutting_down"},
	internal:             {500, "internal_error", "internal", "api_error", "gateway_internal"},
	upgradeNotSupported:  {426, "invalid_request_error", "upgrade_not_supported", "", "caller_invalid"},
	versionNotSupported:  {505, "invalid_request_error", "version_not_supported", "", "caller_invalid"},
}

// failure is a request that the gateway itself answers. The message is for the client
// and never holds a secret; the cause is for the log.
type failure struct {
	kind       kind
	message    string
	param      string // the field at fault, "" for none
	retryAfter time.Duration
	left       bool // the client has gone: nobody reads this
	ownStatus  bool // the answer has the upstream's status, not the kind's
	cause      error
}

func refusal(k kind, param, format string, args ...any) *failure {
	return &failure{kind: k, param: param, message: fmt.Sprintf(format, args...)}
}

// upstreamFailure is what a client reads of an attempt that failed with cause. Neither
// addresses nor what the upstream said are in it.
func upstreamFailure(cause pool.Cause, upstream string, err error) *failure {
	rule := &causeRules[cause]
	f := &failure{kind: rule.kind, cause: err}
	switch cause {
	case pool.ShuttingDown:
		f.message, f.retryAfter = rule.text+"; try again", time.Second
		return f
	case pool.ClientLeft:
		f.left, f.cause = true, nil
	}
	f.message = "upstream " + upstream + " failed: " + rule.text
	return f
}

// lacksCredential says why a model without a target that could be asked cannot be used.
func lacksCredential(m *pool.Model) string {
	t := m.Unset[0]
	why := "its API key is not set"
	if t.Variable != "" {
		why += " (" + t.Variable + " is not in the environment, or empty)"
	}
	return fmt.Sprintf("the model %s cannot be used: nothing is sent to upstream %s, since %s", m.Name, t.Upstream.Name, why)
}

// crowded is the failure of a request for which there is no place at any upstream in time.
func crowded(target *pool.Target, retryAfter time.Duration) *failure {
	f := refusal(overloaded, "", "upstream %s is at its limit of requests in flight (max_in_flight), and too many wait before this one; try again", target.Upstream.Name)
	f.retryAfter = max(retryAfter, time.Second)
	return f
}

// dialect is the API family whose error shape a path's clients read.
type dialect uint8

const (
	openAI dialect = iota
	anthropic
	responses // OpenAI's, with events of its own
	gemini    // of paths that are not spoken here
)

// appendError writes f as the JSON body that d's clients read.
func appendError(dst []byte, d dialect, f *failure) []byte {
	row := &kindTable[f.kind]
	switch d {
	case gemini:
		return appendGeminiError(dst, row.status, f.message)
	case anthropic:
		typ := row.typ
		if row.anthropic != "" {
			typ = row.anthropic
		}
		dst = append(dst, `{"type":"error","error":{`...)
		dst = jsontext.AppendString(jsontext.AppendName(dst, "type"), typ)
		dst = jsontext.AppendString(jsontext.AppendName(dst, "message"), f.message)
		return append(dst, "}}"...)
	}
	return append(appendErrorMember(append(dst, '{'), f), '}')
}

// appendErrorMember appends the member of an object that tells of f as OpenAI does.
func appendErrorMember(dst []byte, f *failure) []byte {
	row := &kindTable[f.kind]
	dst = append(jsontext.AppendName(dst, "error"), '{')
	dst = jsontext.AppendString(jsontext.AppendName(dst, "message"), f.message)
	dst = jsontext.AppendString(jsontext.AppendName(dst, "type"), row.typ)
	dst = jsontext.AppendName(dst, "param")
	if f.param == "" {
		dst = append(dst, "null"...)
	} else {
		dst = jsontext.AppendString(dst, f.param)
	}
	dst = jsontext.AppendString(jsontext.AppendName(dst, "code"), row.code)
	return append(dst, '}')
}

// appendGeminiError writes an error as Google's APIs do.
func appendGeminiError(dst []byte, status int, message string) []byte {
	name := "INVALID_ARGUMENT"
	switch status {
	case 401:
		name = "UNAUTHENTICATED"
	case 404:
		name = "NOT_FOUND"
	}
	dst = append(dst, `{"error":{`...)
	dst = strconv.AppendInt(jsontext.AppendName(dst, "code"), int64(status), 10)
	dst = jsontext.AppendString(jsontext.AppendName(dst, "message"), message)
	dst = jsontext.AppendString(jsontext.AppendName(dst, "status"), name)
	return append(dst, "}}"...)
}

// statusClientLeft is what nginx logs for a client that did not wait.
const statusClientLeft = 499

// refuse answers with f. What an attempt has put into the answer so far is dropped.
func (r *request) refuse(f *failure) {
	row := &kindTable[f.kind]
	resp := &r.ctx.Response
	allow := append([]byte(nil), resp.Header.Peek("Allow")...)
	resp.Reset()
	if len(allow) > 0 {
		resp.Header.SetBytesV("Allow", allow)
	}
	r.failure = f
	r.status = row.status
	resp.SetStatusCode(row.status)
	if f.left {
		r.status = statusClientLeft // for the log; who has half-closed reads an error all the same
		r.ctx.SetConnectionClose()
	} else {
		r.proxy.refused[f.kind].Inc()
	}
	resp.Header.SetContentType("application/json")
	if f.retryAfter > 0 {
		resp.Header.Set("Retry-After", strconv.FormatInt(int64((f.retryAfter+time.Second-1)/time.Second), 10))
	}
	switch row.status {
	case 503:
		if f.retryAfter > 0 {
			break
		}
		fallthrough // it is the operator's to mend
	case 400, 401, 403, 404, 405, 413, 415, 426, 431, 505: // repeating it mends nothing
		resp.Header.Set("X-Should-Retry", "false")
	}
	if f.kind == upgradeNotSupported {
		resp.Header.Set(fasthttp.HeaderUpgrade, "HTTP/1.1") // what can be spoken
		resp.Header.Set(fasthttp.HeaderConnection, "Upgrade")
	}
	r.setOwnHeaders()
	resp.SetBodyRaw(appendError(nil, r.dialect(), f))
	if !r.bodyRead {
		r.leaveBody()
	}
}

// leaveBody answers a client whose body is not read, and may still be on its way.
func (r *request) leaveBody() {
	r.conn.Linger()
	if r.ctx.Request.Header.ContentLength() < 0 && r.ctx.RequestBodyStream() != nil {
		r.ctx.SetConnectionClose() // the server would read chunks to their end, which may never come
	}
}

// refuseHead answers a request whose head could not be read.
func (p *Proxy) refuseHead(ctx *fasthttp.RequestCtx, err error) {
	r := p.begin(ctx)
	defer p.end(r.conn)
	if r.conn.IsIdle() {
		// Nothing was asked on this new connection, or TLS has failed. An answer could be taken for
		// that to the first request, which may be on its way.
		r.conn.Break(errNothingAsked)
		return
	}
	r.readBrokenLine()
	r.refuse(headFailure(err, r.conn))
}

var errNothingAsked = errors.New("the client has asked nothing")

func headFailure(err error, conn *client.Conn) *failure {
	// The error's text may quote the head, credentials included; it goes nowhere.
	switch {
	case conn.BadVersion():
		return refuseVersion()
	case errors.Is(err, client.ErrBareLF):
		return refuseBareLF()
	case isSmallBuffer(err):
		return refusal(headTooLarge, "", "the request's head is larger than limits.head")
	case isTimeout(err):
		return refusal(requestTimeout, "", "the request did not arrive in time")
	}
	return refusal(invalidRequest, "", "the request's head is not valid HTTP/1.1")
}
