package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// codeLife is how long a one-time code signs a browser in.
	codeLife = time.Minute
	// maxCodes bounds the codes that have not been used.
	maxCodes = 16
	maxCode  = 1 << 10 // bytes of a request that uses one
)

// signInCodes are codes that each sign one browser in, once, within codeLife. A link to the page can
// carry one in its fragment, which no server and no log sees; it never carries the admin token. Only
// digests are kept, so that looking one up tells nothing of the others.
type signInCodes struct {
	mu   sync.Mutex
	ends map[[sha256.Size]byte]time.Time
}

func newSignInCodes() *signInCodes {
	return &signInCodes{ends: map[[sha256.Size]byte]time.Time{}}
}

// create makes a code; false while maxCodes have not been used.
func (c *signInCodes) create(now time.Time) (code string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.ends, func(_ [sha256.Size]byte, end time.Time) bool { return !now.Before(end) })
	if len(c.ends) >= maxCodes {
		return "", false
	}
	code = rand.Text() // 128 bits and more
	c.ends[sha256.Sum256([]byte(code))] = now.Add(codeLife)
	return code, true
}

// use reports whether code signs in now. It does so once.
func (c *signInCodes) use(now time.Time, code string) bool {
	digest := sha256.Sum256([]byte(code))
	c.mu.Lock()
	defer c.mu.Unlock()
	end, known := c.ends[digest]
	delete(c.ends, digest)
	return known && now.Before(end)
}

func (a *Admin) createSignInCode(w http.ResponseWriter, _ *http.Request) {
	code, ok := a.codes.create(time.Now())
	if !ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(codeLife/time.Second)))
		writeError(w, 429, "rate_limit_exceeded", "", "there are "+strconv.Itoa(maxCodes)+" codes that have not been used; each ends after a minute")
		return
	}
	writeJSON(w, 201, map[string]any{"code": code, "expires_in_seconds": int(codeLife / time.Second)})
}

// signIn gives the page the admin token for a code. A wrong code is a failed login.
func (a *Admin) signIn(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r, maxCode)
	var sent struct{ Code string }
	if err != nil || json.Unmarshal(body, &sent) != nil {
		writeError(w, 400, "invalid_request", "code", `the body must be {"code":"…"}`)
		return
	}
	if !a.codes.use(time.Now(), sent.Code) {
		a.refuseLogin(w, r, "this code has been used, or is older than a minute; sluice page makes another")
		return
	}
	a.log.Info("signed in to the admin page with a one-time code", "address", r.RemoteAddr)
	writeJSON(w, 200, map[string]string{"token": a.live.Status().Config.Admin.Token.Reveal()})
}
