package pool

import (
	"context"
	"errors"
	"net"
	"os"
)

// Cause is why an attempt failed: a closed list, shown to clients and in metrics.
type Cause uint8

// The causes.
const (
	ConnectFailed     Cause = iota // no connection
	ConnectTimeout                 // none within timeouts.connect
	TLSFailed                      // the handshake failed
	ConnectionLost                 // closed or reset before the first byte of an answer
	FirstByteTimeout               // nothing within timeouts.first_byte
	ResponseTimeout                // no whole answer within timeouts.response or timeouts.total
	MalformedResponse              // bytes that are not HTTP, or not what HTTP allows here
	ResponseBroken                 // the answer broke off
	StatusRefused                  // an HTTP error status
	CredentialRefused              // 401, 402 or 403: the gateway's own credential was refused
	Redirected                     // a redirect, which is never followed
	ErrorEvent                     // a stream whose first event is an error, or a plain 2xx with an error in it
	NoAnswer                       // a 2xx with nothing in it, without any choices, or with what is not JSON under that type
	StreamBroken                   // a stream broke off, stalled or ended without a terminator
	ClientLeft                     // ended from this side, as those below are: the client has gone
	ShuttingDown                   // the process ends
	GatewayFailed                  // a panic on this side
	causes
)

var causeNames = [causes]string{
	"connect_failed", "connect_timeout", "tls_failed", "connection_lost", "first_byte_timeout", "response_timeout",
	"malformed_response", "response_broken", "status", "credential_refused", "redirect", "error_event", "no_answer", "stream_broken", "client_left", "shutting_down", "gateway_failed",
}

func (c Cause) String() string { return causeNames[c] }

// Ended reports whether the attempt was ended from the client's side or the gateway's, so that
// it says nothing of the upstream.
func (c Cause) Ended() bool { return c >= ClientLeft }

// Error is a failed attempt: Cause for the client, Err for the log alone.
type Error struct {
	Cause Cause
	Err   error
}

func (e *Error) Error() string { return e.Cause.String() + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

func failed(c Cause, err error) *Error { return &Error{Cause: c, Err: err} }

func connectError(err error) *Error {
	var handshake *handshakeError
	switch {
	case isTimeout(err):
		return failed(ConnectTimeout, err)
	case errors.As(err, &handshake):
		return failed(TLSFailed, err)
	}
	return failed(ConnectFailed, err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
