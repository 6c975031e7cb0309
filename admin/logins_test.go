package admin

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// from makes a request to an API path from an address.
func (p *port) from(address, auth string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/api/keys", nil)
	r.RemoteAddr = address
	r.Header.Set("Authorization", auth)
	w := httptest.NewRecorder()
	p.a.server.Handler.ServeHTTP(w, r)
	return w
}

// TestFailedLogins are logged with their address, counted, and slowed for that address alone. The
// right token is served whatever has failed.
func TestFailedLogins(t *testing.T) {
	p := start(t)
	const attacker, wrong = "192.0.2.7:1000", "Bearer wrong-sesame"
	for i := range loginBurst {
		if w := p.from(attacker, wrong); w.Code != 401 {
			t.Fatalf("failure %d: %d", i, w.Code)
		}
	}
	w := p.from(strings.Replace(attacker, "1000", "2000", 1), wrong)
	if w.Code != 429 || w.Header().Get("Retry-After") != "5" || !strings.Contains(w.Body.String(), `"code":"rate_limit_exceeded"`) ||
		!strings.Contains(w.Body.String(), `"type":"rate_limit_error"`) {
		t.Errorf("one too many: %d %v %s", w.Code, w.Header(), w.Body)
	}
	for name, test := range map[string]struct {
		address, auth string
		want          int
	}{
		"the right token from the same address": {attacker, "Bearer " + token, 200},
		"another address":                       {"192.0.2.8:1000", wrong, 401},
		"still too many":                        {attacker, wrong, 429},
	} {
		if w := p.from(test.address, test.auth); w.Code != test.want {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	log := p.log.String()
	if strings.Count(log, "admin login failed") != loginBurst+1 || !strings.Contains(log, `"address":"192.0.2.7:1000","path":"/api/keys"`) || strings.Contains(log, "sesame") {
		t.Errorf("%s", log)
	}
	if body := p.raw("GET", "/metrics", "").Body.String(); !strings.Contains(body, fmt.Sprintf("sluice_admin_login_failures_total %d\n", loginBurst+3)) {
		t.Error("the metric has another number")
	}
}

// TestLoginsForget: buckets empty with time, and the table is bounded and swept.
func TestLoginsForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})
		l := newLogins(slog.New(slog.DiscardHandler), counter)
		fail := func(remote string) time.Duration { return l.fail(time.Now(), remote, "/") }
		for i := range loginBurst {
			if wait := fail(fmt.Sprintf("[2001:db8::%x]:1", i)); wait != 0 {
				t.Fatalf("failure %d waits %s", i, wait)
			}
		}
		for remote, want := range map[string]time.Duration{
			"[2001:db8::ffff:1]:1": loginEvery, // of the same /64
			"[2001:db8:0:1::1]:1":  0,
			"[::ffff:192.0.2.1]:1": 0,
		} {
			if wait := fail(remote); wait != want {
				t.Errorf("%s waits %s, want %s", remote, wait, want)
			}
		}
		if loginAddress("[::ffff:192.0.2.1]:1") != loginAddress("192.0.2.1:2") {
			t.Error("one IPv4 address is two")
		}
		time.Sleep(loginEvery)
		if first, second := fail("[2001:db8::1]:1"), fail("[2001:db8::1]:1"); first != 0 || second != loginEvery {
			t.Errorf("after %s: %s, %s", loginEvery, first, second)
		}
		for i := range 2 * maxAddresses {
			fail(fmt.Sprintf("10.0.%d.%d:1", i>>8, i&255))
		}
		if n := len(l.emptyAt); n > maxAddresses+1 {
			t.Errorf("the table has %d entries", n)
		}
		if wait := fail("203.0.113.1:1"); wait == 0 {
			t.Error("an address beyond the table is not slowed")
		}
		time.Sleep(time.Hour)
		if wait := fail("203.0.113.1:1"); wait != 0 || len(l.emptyAt) != 1 {
			t.Errorf("an hour later it waits %s, and the table has %d entries", wait, len(l.emptyAt))
		}
	})
}
