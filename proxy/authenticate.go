package proxy

import (
	"bytes"

	"sluice/keys"
)

var bearer = []byte("bearer ")

// maxCredentials is how many different credentials of one request are looked up.
const maxCredentials = 8

// credentials is what the client presents. Some clients send an account's token of their own beside the
// gateway's key, so that the one counts that is a usable key here.
type credentials struct {
	key       *keys.Key // usable
	several   bool      // so are others
	any       bool      // there is one
	malformed bool      // the Authorization header is not Bearer KEY
}

// authenticate finds the gateway key that the client presents.
func (r *request) authenticate() *failure {
	switch c := r.credentials(); {
	case c.several:
		return refusal(invalidAPIKey, "", "two different API keys were sent; send one")
	case c.key != nil:
		r.key = c.key
		return nil
	case c.any:
		return refusal(invalidAPIKey, "", "the API key is unknown, revoked, disabled or expired")
	case c.malformed:
		return refusal(invalidAPIKey, "", "the Authorization header must be: Bearer KEY")
	}
	return refusal(invalidAPIKey, "", "no API key was sent; send Authorization: Bearer KEY, or the key in x-api-key, api-key or x-goog-api-key")
}

func (r *request) credentials() (c credentials) {
	var last []byte
	tried := 0
	for name, value := range r.ctx.Request.Header.All() {
		switch string(name) {
		case "Authorization":
			if len(value) <= len(bearer) || !bytes.EqualFold(value[:len(bearer)], bearer) {
				c.malformed = true
				continue
			}
			value = value[len(bearer):]
		case "X-Api-Key", "Api-Key", "X-Goog-Api-Key":
		default:
			continue
		}
		value = bytes.TrimSpace(value)
		if len(value) == 0 || c.any && bytes.Equal(value, last) {
			continue
		}
		if tried++; tried > maxCredentials {
			c.several = true
			return c
		}
		c.any, last = true, value
		key := r.proxy.keys.Lookup(value)
		if key == nil || !key.Spec().Usable(r.began) {
			continue
		}
		c.several = c.several || c.key != nil && c.key != key
		c.key = key
	}
	return c
}
