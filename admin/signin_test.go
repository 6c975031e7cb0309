package admin

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSignInCode: a code gives the token once, and is made for who has the token.
func TestSignInCode(t *testing.T) {
	p := start(t)
	p.refused("POST", "/api/sign-in/codes", "", 401, "invalid_api_key", "", "send Authorization", "Authorization", "Bearer wrong")
	status, made := p.call("POST", "/api/sign-in/codes", "")
	code, _ := made["code"].(string)
	if status != 201 || len(code) < 20 || made["expires_in_seconds"] != 60.0 {
		t.Fatalf("%d %v", status, made)
	}
	use := `{"code":"` + code + `"}`
	if status, v := p.call("POST", "/api/sign-in", use, "Authorization", ""); status != 200 || v["token"] != token {
		t.Errorf("%d %v", status, v)
	}
	p.refused("POST", "/api/sign-in", use, 401, "invalid_api_key", "", "has been used", "Authorization", "")
	p.refused("POST", "/api/sign-in", `{"code":""}`, 401, "invalid_api_key", "", "has been used", "Authorization", "")
	p.refused("POST", "/api/sign-in", "code", 400, "invalid_request", "code", "the body must be", "Authorization", "")
	p.refused("POST", "/api/sign-in", `"`+strings.Repeat("x", maxCode)+`"`, 400, "invalid_request", "code", "the body must be", "Authorization", "")
	p.refused("GET", "/api/sign-in", "", 405, "method_not_allowed", "", "POST", "Authorization", "")
	if strings.Contains(p.log.String(), code) || strings.Contains(p.log.String(), token) {
		t.Error("a secret is in the log")
	}
	// Guessing is slowed as it is for the token.
	for i := range loginBurst + 1 {
		r, _ := http.NewRequest("POST", "/api/sign-in", strings.NewReader(`{"code":"`+strconv.Itoa(i)+`"}`))
		r.RemoteAddr = "203.0.113.1:1"
		if w := p.serve(r); (w.Code == 429) != (i == loginBurst) {
			t.Errorf("guess %d: %d", i, w.Code)
		}
	}
}

func TestSignInCodesEnd(t *testing.T) {
	codes := newSignInCodes()
	now := time.Now()
	first, _ := codes.create(now)
	late, _ := codes.create(now)
	if codes.use(now.Add(codeLife), late) || !codes.use(now.Add(codeLife-1), first) || codes.use(now, first) {
		t.Error("a code works for a minute, and once")
	}
	for range maxCodes {
		if _, ok := codes.create(now); !ok {
			t.Fatal("too few codes")
		}
	}
	if _, ok := codes.create(now.Add(codeLife - 1)); ok {
		t.Error("codes without a bound")
	}
	if _, ok := codes.create(now.Add(codeLife)); !ok {
		t.Error("codes that have ended are not forgotten")
	}
}
