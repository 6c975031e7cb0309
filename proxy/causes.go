package proxy

import (
	"sluice/config"
	"sluice/pool"
)

// causeRule is what follows from an attempt that failed with a pool.Cause. docs/resilience.md has
// the same as a table, and a test compares them.
type causeRule struct {
	text        string       // for the client, behind "upstream X failed: "
	kind        kind         // of the client's error, if nothing else answers
	next        verdict      // for the request
	target      pool.Outcome // for the target
	showsStatus bool         // in the trail, in place of the cause's name
	// timeout is the one that has passed. If the client or the rest of timeouts.total made it shorter
	// than the operator has it, the attempt says nothing of the target: else a client could have a
	// target shut for all.
	timeout func(*config.Timeouts) config.Duration
}

// causeRules has a row for each cause. The rows of StatusRefused are statusRule's.
var causeRules = [...]causeRule{
	pool.ConnectFailed: {text: "no connection", kind: upstreamError, next: again, target: pool.Failed},
	pool.ConnectTimeout: {text: "no connection in time", kind: upstreamTimeout, next: again, target: pool.Failed,
		timeout: func(t *config.Timeouts) config.Duration { return t.Connect }},
	pool.TLSFailed:      {text: "the TLS handshake failed", kind: upstreamError, next: again, target: pool.Failed},
	pool.ConnectionLost: {text: "it closed the connection before it answered", kind: upstreamError, next: again, target: pool.Failed},
	pool.FirstByteTimeout: {text: "no answer in time", kind: upstreamTimeout, next: again, target: pool.Failed,
		timeout: func(t *config.Timeouts) config.Duration { return t.FirstByte }},
	pool.ResponseTimeout: {text: "no whole answer in time", kind: upstreamTimeout, next: onward, target: pool.Failed, // it has been paid for once
		timeout: func(t *config.Timeouts) config.Duration { return t.Response }},
	pool.MalformedResponse: {text: "its answer is not HTTP", kind: upstreamError, next: again, target: pool.Failed},
	pool.ResponseBroken:    {text: "its answer broke off", kind: upstreamError, next: again, target: pool.Failed},
	pool.StatusRefused:     {text: "it answered with an error status", kind: upstreamError, showsStatus: true},
	pool.CredentialRefused: {text: "it refused the gateway's credential", kind: upstreamError, next: otherTarget, target: pool.CredentialDenied, showsStatus: true},
	pool.Redirected:        {text: "it answered with a redirect, which is not followed", kind: upstreamError, next: otherTarget, target: pool.Unclear, showsStatus: true},
	pool.ErrorEvent:        {text: "it answered with success and an error in it", kind: upstreamError, next: again, target: pool.Refused},
	pool.NoAnswer:          {text: "it answered with success and no answer in it", kind: upstreamError, next: again, target: pool.Failed},
	// After the first event nothing is tried again, whatever next says.
	pool.StreamBroken:  {text: "its stream broke off", kind: upstreamStreamBroken, next: again, target: pool.Failed},
	pool.ClientLeft:    {text: "the client has left", kind: upstreamError, next: over, target: pool.Unknown},
	pool.ShuttingDown:  {text: "the gateway is shutting down", kind: shuttingDown, next: over, target: pool.Unknown},
	pool.GatewayFailed: {text: "the gateway failed", kind: upstreamError, next: over, target: pool.Unknown},
}

// statusRule is causeRule for an HTTP error status that is no refused credential. over holds if another
// model would refuse the request as well.
func statusRule(status int) (next verdict, target pool.Outcome) {
	switch {
	case retryable(status):
		next = again
	case ownFault(status):
		next = over
	default:
		next = otherTarget
	}
	switch {
	case status >= 500:
		target = pool.Failed
	case status == 403:
		target = pool.Unclear // a firewall's page
	default:
		target = pool.Refused
	}
	return next, target
}

// retryable reports whether the same model may do better the next time.
func retryable(status int) bool {
	switch status {
	case 408, 409, 425, 429, 500, 502, 503, 504, 529:
		return true
	}
	return false
}

// ownFault reports whether a status says that the request itself is at fault, wherever it is sent.
func ownFault(status int) bool { return status == 400 || status == 413 || status == 422 }
