package proxy

import "bytes"

var bearer = []byte("bearer ")

// authenticate finds the gateway key that the client presents.
func (r *request) authenticate() *failure {
	secret, f := r.presented()
	if f != nil {
		return f
	}
	key := r.proxy.keys.Lookup(secret)
	if key == nil || !key.Spec().Usable(r.began) {
		return refusal(invalidAPIKey, "", "the API key is unknown, revoked, disabled or expired")
	}
	r.key = key
	return nil
}

// presented is the one credential in the request's head.
func (r *request) presented() (secret []byte, f *failure) {
	for name, value := range r.ctx.Request.Header.All() {
		switch string(name) {
		case "Authorization":
			if len(value) <= len(bearer) || !bytes.EqualFold(value[:len(bearer)], bearer) {
				return nil, refusal(invalidAPIKey, "", "the Authorization header must be: Bearer KEY")
			}
			value = value[len(bearer):]
		case "X-Api-Key", "Api-Key":
		default:
			continue
		}
		value = bytes.TrimSpace(value)
		if len(value) == 0 {
			continue
		}
		if secret != nil && !bytes.Equal(secret, value) {
			return nil, refusal(invalidAPIKey, "", "two different API keys were sent; send one")
		}
		secret = value
	}
	if len(secret) == 0 {
		return nil, refusal(invalidAPIKey, "", "no API key was sent; send Authorization: Bearer KEY, x-api-key: KEY or api-key: KEY")
	}
	return secret, nil
}
