package pool

// Outcome is what an attempt's end says of the target.
type Outcome uint8

// The outcomes.
const (
	// Unknown: the attempt was ended for reasons that are not the target's.
	Unknown Outcome = iota
	// Served: the target gave the answer that was asked for.
	Served
	// Refused: it answered with an error that is no failure of its own.
	Refused
	// CredentialDenied: it refused the credential.
	CredentialDenied
	// Unclear: it answered, and nobody knows whether it has looked at the credential.
	Unclear
	// Failed: no connection, a time-out, a broken answer, or a server error.
	Failed
)

// ofTarget is what o says to a target's breaker.
func (o Outcome) ofTarget() vote {
	switch o {
	case Unknown:
		return neither
	case Failed:
		return failure
	}
	return success
}

// ofCredential is what o says of the credential that was sent.
func (o Outcome) ofCredential() vote {
	switch o {
	case Served, Refused:
		return success
	case CredentialDenied:
		return failure
	}
	return neither
}
