package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"sluice/mock"
)

// browser is a real one, on the admin page of n.
type browser struct {
	t   *testing.T
	n   *node
	ctx context.Context

	mu     sync.Mutex
	others []string // what it asked of other hosts
	wrong  []string // what it complained of
}

func browse(t *testing.T, n *node) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 900))
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		end()
		endAlloc()
	})
	b := &browser{t: t, n: n, ctx: ctx}
	err = chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, n.admin+"/") && !strings.HasPrefix(e.Request.URL, "data:") || strings.Contains(e.Request.URL, adminToken) {
				b.others = append(b.others, e.Request.URL)
			}
		case *runtime.EventExceptionThrown:
			b.wrong = append(b.wrong, fmt.Sprintf("%+v %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork { // a refused request is none of the page's mistakes
				b.wrong = append(b.wrong, e.Entry.Text)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.do("open", command(network.Enable, network.EnableParams{}), command(log.Enable, cdp.Empty{}), chromedp.Navigate(n.admin+"/"), chromedp.WaitVisible(chromedp.CSS("#token")))
	return b
}

// command is a protocol command whose result is of no interest.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.failed(what, err)
	}
}

func (b *browser) failed(what string, err error) {
	b.t.Helper()
	body, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
	b.t.Fatalf("%s: %v\n%v\nthe page: %s", what, err, b.wrong, body)
}

func (b *browser) eval(js string) string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+js+")"))
	if err != nil {
		b.failed(js, err)
	}
	return text
}

// until waits for a JavaScript condition. (The library's own way is against the page's policy.)
func (b *browser) until(js string) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); b.eval("!!("+js+")") != "true"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.failed(js, context.DeadlineExceeded)
		}
	}
}

// says waits until an element has a text in it.
func (b *browser) says(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.do("click "+selector, chromedp.WaitVisible(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector)))
}

func (b *browser) typed(selector, text string) {
	b.t.Helper()
	b.do(selector, chromedp.WaitVisible(chromedp.CSS(selector)))
	b.eval(fmt.Sprintf("((e) => { e.focus(); e.select(); })(document.querySelector(%q))", selector))
	b.do("type into "+selector, chromedp.KeyEvent(text))
}

func (b *browser) view(name string) {
	b.t.Helper()
	b.click(`nav a[href="#` + name + `"]`)
	b.do(name, chromedp.WaitVisible(chromedp.CSS("#"+name)))
}

// picture writes a screenshot to docs.
func (b *browser) picture(name string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.failed(name, err)
	}
	if err := os.WriteFile(filepath.Join("docs", name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// colours makes the page light or dark.
func (b *browser) colours(scheme string) {
	b.t.Helper()
	b.do(scheme, command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}))
}

// secret is the key that is shown, this once.
func (b *browser) secret() string {
	b.t.Helper()
	b.until(`document.querySelector("#secret-dialog").open && document.querySelector("#secret").value.startsWith("sk-sluice-")`)
	secret := b.eval(`document.querySelector("#secret").value`)
	if curl := b.eval(`document.querySelector("#secret-curl").value`); !strings.Contains(curl, secret) || !strings.Contains(curl, b.n.data+"/v1/chat/completions") || !strings.Contains(curl, `"model":"demo"`) {
		b.t.Errorf("the ready request is %s", curl)
	}
	return secret
}

func signedIn(t *testing.T, n *node) *browser {
	t.Helper()
	b := browse(t, n)
	b.typed("#token", adminToken+kb.Enter)
	b.do("sign in", chromedp.WaitVisible(chromedp.CSS("#overview")))
	return b
}

// TestAdminPage: an admin's day, in a browser.
func TestAdminPage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := settings(dir, provider(t, &mock.Provider{Chunks: 3, Delay: 5 * time.Millisecond}), "")
	n := beginIn(t, dir, good)
	b := browse(t, n)
	post := func(secret string, want int) {
		t.Helper()
		if status, body := n.call("POST", n.data+"/v1/chat/completions", secret, `{"model":"demo","messages":[]}`); status != want {
			t.Errorf("%d %s, want %d", status, body, want)
		}
	}

	b.typed("#token", "not the admin token"+kb.Enter)
	b.says("#sign-in-error", "This is not the admin token.")
	b.typed("#token", adminToken+kb.Enter)
	b.do("sign in", chromedp.WaitVisible(chromedp.CSS("#overview")))

	b.view("keys")
	b.says("#keys-table", "There is no key yet.")
	b.view("overview")
	b.says("#first", "Make a key")
	b.view("keys")
	b.click("#key-new")
	b.typed("#key-name", `<b>search</b> "team"`)
	b.typed("#key-requests", "many")
	b.click("#key-save")
	b.says("#key-error", "limits.requests: must be a whole number")
	b.typed("#key-requests", "3")
	b.typed("#key-period", "1h")
	b.click("#key-save")
	secret := b.secret()
	b.click("#secret-dialog [data-close]")
	b.until(`document.querySelector("#secret").value + document.querySelector("#secret-curl").value === ""`)
	if left := b.eval(`document.documentElement.outerHTML`); strings.Contains(left, secret) {
		t.Error("the secret is still in the page")
	}

	for range 3 {
		post(secret, 200)
	}
	post(secret, 429)
	b.says("#keys-table", "3 of 3 in 3600s")
	b.says("#keys-table", `<b>search</b> "team"`)
	b.view("overview")
	b.says("#chart-requests .legend", "demo")
	b.until(`document.querySelector("#tile-requests dd").innerText !== "0/s"`)
	b.until(`document.querySelector("#chart-requests .plot").getAttribute("aria-label").includes("demo")`)
	b.until(`/ms|µs/.test(document.querySelector("#chart-first-byte .legend").innerText)`)
	b.until(`document.querySelectorAll("#overview .plot canvas").length === 6`)
	b.says("#chart-errors", "policy_limit")
	b.says("#marks", "sluice started")
	b.until(`document.querySelector("#tile-refused").title !== "" && document.querySelector("#tile-error-rate").className === "good"`)
	b.click(`#chart-first-byte .legend button[data-name="p50"]`)
	b.until(`document.querySelector('#chart-first-byte [data-name="p50"]').getAttribute("aria-pressed") === "true"`)
	b.click(`#ranges [data-range="7d"]`)
	b.until(`document.querySelector("#chart-requests .plot").getAttribute("aria-label").includes("last 7 days. Now: demo")`)
	b.view("errors")
	b.says("#errors-table", "policy_limit")
	b.says("#errors-table", `<b>search</b> "team"`)
	b.says("#groups-table", "limits.requests")
	b.requests(secret)

	b.view("keys")
	b.click(`[data-action="edit"]`)
	b.do("the form", chromedp.WaitVisible(chromedp.CSS("#key-dialog")))
	id := b.eval(`document.querySelector("#keys-table [data-id]").dataset.id`)
	n.call("PATCH", n.admin+"/api/keys/"+id+"?force=true", adminToken, `{"expires_at":"2099-01-02T03:04:05Z","models":["demo","x"]}`) // somebody else, meanwhile
	b.typed("#key-requests", "10")
	b.click("#key-save")
	b.says("#keys-table", "of 10 in 3600s")
	post(secret, 200)
	if _, text := n.call("GET", n.admin+"/api/keys/"+id, adminToken, ""); !strings.Contains(text, `"expires_at":"2099-01-02T03:04:05Z"`) || !strings.Contains(text, `"models":["demo","x"]`) || !strings.Contains(text, `"period":"3600s"`) {
		t.Errorf("what was not edited has changed: %s", text)
	}
	b.click(`[data-action="rotate"]`)
	b.says("#confirm-dialog", "the old one stops at once")
	b.click("#confirm-yes")
	rotated := b.secret()
	b.do("close", chromedp.KeyEvent(kb.Escape))
	b.until(`!document.querySelector("#secret-dialog").open && document.querySelector("#secret").value === ""`)
	post(secret, 401)
	post(rotated, 200)
	b.keyPage(id)
	b.playground(rotated)
	b.view("keys")
	b.click(`#keys-table [data-action="revoke"]`)
	b.says("#confirm-dialog", "cannot be undone")
	b.click("#confirm-yes")
	b.says("#keys-table", "There is no key yet.")
	post(rotated, 401)

	b.view("models")
	b.says("#models-table", "demo-model")
	b.says("#models-table", "closed")
	b.typed("#models-search", "nothing like it")
	b.says("#models-table", "Nothing matches.")
	b.typed("#models-search", "demo clo")
	b.says("#models-table", "demo-model")
	b.says("#upstreams-table", "up")
	b.typed("#models-search", "demo")
	b.click(`#upstreams-table [data-drain="drain"]`)
	b.says("#models-table", "drained")
	b.says("#upstreams-table", "drained")
	b.click(`#upstreams-table [data-drain="undrain"]`)
	b.says("#upstreams-table", "serves")

	b.view("configuration")
	b.says("#config-text", "[redacted]")
	b.says("#config-state", "The file says the same.")
	write(t, n.path, strings.Replace(good, "upstream: up", "upstream: opena", 1))
	b.says("#config-findings", `config.yaml:6:`)
	b.says("#config-findings", `no upstream is called "opena"; upstreams are up`)
	b.view("overview")
	b.says("#banner", `no upstream is called "opena"`)
	b.view("configuration")
	b.click("#reload")
	b.says("#reload-result", "It was not reloaded")
	write(t, n.path, good)
	b.until(`document.querySelector("#config-findings").innerText === "" && document.querySelector("#banner").hidden`)
	b.says("#version", "configuration ")

	// Where a token could be found later.
	if kept := b.eval(`JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, document.documentElement.outerHTML])`); strings.Contains(kept, adminToken) {
		t.Error("the page keeps the token")
	}
	b.click("#sign-out")
	b.until(`document.readyState === "complete" && document.querySelector("#app").hidden && document.querySelector("#keys-table").tBodies[0].rows.length === 0`)
	if left := b.eval(`document.querySelector("#app").textContent`); strings.Contains(left, "demo-model") || strings.Contains(left, "[redacted]") {
		t.Error("what an admin saw is still in the page")
	}
	if len(b.others) > 0 || len(b.wrong) > 0 {
		t.Errorf("asked elsewhere: %q, complaints: %q", b.others, b.wrong)
	}
}

// requests looks at the requests of the key with secret: live, filtered, and one of them.
func (b *browser) requests(secret string) {
	b.t.Helper()
	b.view("requests")
	b.says("#requests-table", "policy_limit")
	b.n.call("POST", b.n.data+"/v1/chat/completions", secret, `{"model":"nobody-has-this"}`)
	b.says("#requests-table", "caller_unknown_model") // by itself
	b.typed("#requests-status", "nonsense")
	b.says("#requests-state", "must be a status such as 429")
	b.typed("#requests-status", "2xx")
	b.until(`document.querySelectorAll("#requests-table tbody tr").length === 3 && !document.querySelector("#requests-table").innerText.includes("policy_limit")`)
	b.click(`#requests-table tbody a[href^="#requests/@"]`)
	b.do("one request", chromedp.WaitVisible(chromedp.CSS("#request-known")))
	b.says("#request-facts", "demo@up;200;")
	b.says("#waterfall", "demo-model (demo at up)")
	b.until(`document.querySelectorAll("#waterfall .water i.first_byte").length === 1`)
	if curl := b.eval(`document.querySelector("#request-curl").value`); !strings.Contains(curl, `"model":"demo"`) || !strings.Contains(curl, b.n.data+"/v1/chat/completions") || strings.Contains(curl, secret) {
		b.t.Errorf("the request is repeated with %s", curl)
	}
	b.click(`#request [data-copy="request-curl"]`)
	b.until(`/Copied|keyboard/.test(document.querySelector("#toast").innerText)`)
	b.view("overview")
}

// keyPage looks at one key.
func (b *browser) keyPage(id string) {
	b.t.Helper()
	b.click(`#keys-table a[href="#keys/` + id + `"]`)
	b.says("#one-title", `<b>search</b> "team"`)
	b.says("#one-facts", "of 10 in 3600s")
	b.says("#one-errors", "policy_limit")
	b.says("#one-chart-requests .legend", "requests")
	b.says("#one-chart-requests .legend", "refused by a limit or policy")
	b.click(`#one-actions [data-action="edit"]`)
	b.typed("#key-note", "who looks after it")
	b.click("#key-save")
	b.says("#one-facts", "who looks after it")
}

// playground sends a request from the page.
func (b *browser) playground(secret string) {
	b.t.Helper()
	b.view("playground")
	b.typed("#play-key", secret)
	b.until(`document.querySelector("#play-model").value === "demo"`)
	b.click("#play-send")
	b.says("#play-state", "200, complete")
	b.says("#play-trail", "demo@up;200;")
	b.until(`document.querySelector("#play-answer").innerText.length > 0`)
	for language, part := range map[string]string{"curl": "curl -N", "python": "from openai import OpenAI", "node": "for await", "go": "http.NewRequest"} {
		b.click(`[data-language="` + language + `"]`)
		if code := b.eval(`document.querySelector("#play-code").value`); !strings.Contains(code, part) || !strings.Contains(code, b.n.data) || strings.Contains(code, secret) {
			b.t.Errorf("%s: %s", language, code)
		}
	}
	b.view("overview")
	if left := b.eval(`document.querySelector("#play-key").value + document.querySelector("#play-answer").innerText`); left != "" {
		b.t.Errorf("the playground keeps %q", left)
	}
}

// TestSignInByLink: a link signs in once, and its code does not stay in the address.
func TestSignInByLink(t *testing.T) {
	t.Parallel()
	n := begin(t, "http://127.0.0.1:1/v1", "")
	link := func() string {
		out, err := shell(t, nil, "page", "-admin", n.admin, "-config", n.path)
		if err != nil || !strings.HasPrefix(out, n.admin+"/#sign-in=") {
			t.Fatalf("%q, %v", out, err)
		}
		return strings.TrimSpace(out)
	}
	first := link()
	b := browse(t, n)
	b.do("the link", chromedp.Navigate(first), chromedp.WaitVisible(chromedp.CSS("#overview")))
	b.says("#first", "No request has ended yet")
	if at := b.eval(`location.href`); at != n.admin+"/" {
		t.Errorf("the address is %s", at)
	}
	b.click("#sign-out")
	b.until(`document.readyState === "complete" && document.querySelector("#app").hidden`)
	b.do("the link again", chromedp.Navigate(first))
	b.says("#sign-in-error", "This link has been used")
	b.eval(`void (location.hash = "` + strings.TrimPrefix(link(), n.admin+"/") + `") || ""`)
	b.do("a link in an open page", chromedp.WaitVisible(chromedp.CSS("#overview")))
	if len(b.others) > 0 {
		t.Errorf("asked elsewhere: %q", b.others)
	}
}

// TestAdminPageIsUsable: with a keyboard alone, by a screen reader, at a phone's width, light and dark.
func TestAdminPageIsUsable(t *testing.T) {
	t.Parallel()
	n := begin(t, provider(t, &mock.Provider{Chunks: 3}), "")
	key := n.key(`{"name":"` + strings.Repeat("a long name without an end ", 7) + `","limits":{"requests":1000,"tokens":50000,"concurrent":3}}`)
	for range 5 {
		n.call("POST", n.data+"/v1/chat/completions", key, `{"model":"demo"}`)
	}
	n.call("POST", n.data+"/v1/chat/completions", key, `{"model":"`+strings.Repeat("nope", 40)+`"}`)
	_, listed := n.call("GET", n.admin+"/api/keys", adminToken, "")
	id := regexp.MustCompile(`key_[0-9a-z]+`).FindString(listed)
	b := signedIn(t, n)
	b.do("a phone", chromedp.EmulateViewport(360, 740, chromedp.EmulateScale(2), chromedp.EmulateMobile))
	for _, view := range []string{"overview", "requests", "errors", "models", "keys", "playground", "configuration"} {
		for _, scheme := range []string{"light", "dark"} {
			b.colours(scheme)
			b.view(view)
			b.until(`document.querySelector("nav a[aria-current]").hash === "#` + view + `"`)
			if view != "overview" && view != "configuration" && view != "playground" {
				b.until(`document.querySelectorAll("#` + view + ` tbody tr").length > 0`)
			}
			if wide := b.eval(`[...document.querySelectorAll("body *")].filter(e => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("pre, .plot, .skip")).map(e => e.outerHTML.slice(0, 100)).join("\n")`); wide != "" {
				t.Errorf("%s at a phone's width goes over the edge: %s", view, wide)
			}
			if n := b.eval(`document.documentElement.scrollWidth - innerWidth`); n != "0" {
				t.Errorf("%s scrolls sideways by %s pixels", view, n)
			}
			if low := b.eval(contrast); low != "" {
				t.Errorf("%s, %s: too little contrast: %s", view, scheme, low)
			}
			b.named(view)
		}
	}
	for _, hash := range []string{"requests/@1", "keys/" + id} {
		b.eval(`location.hash = "` + hash + `"`)
		b.until(`document.querySelector("#request-known, #one-known") && [...document.querySelectorAll("#request-known, #one-known")].some(e => e.getClientRects().length)`)
		if n := b.eval(`document.documentElement.scrollWidth - innerWidth`); n != "0" {
			t.Errorf("%s scrolls sideways by %s pixels", hash, n)
		}
		if low := b.eval(contrast); low != "" {
			t.Errorf("%s: too little contrast: %s", hash, low)
		}
		b.named(hash)
	}
	// The first Tab goes past the navigation, if one wants that; a dialog gives the focus back.
	b.view("keys")
	b.do("focus", chromedp.Focus(chromedp.CSS("#key-new")), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("#key-dialog")))
	b.named("the form of a key")
	b.do("escape", chromedp.KeyEvent(kb.Escape))
	b.until(`document.activeElement.id === "key-new"`)
	if len(b.wrong) > 0 {
		t.Errorf("complaints: %q", b.wrong)
	}
}

// contrast lists texts with less than 4.5 to 1 against what is behind them (WCAG 2.2, 1.4.3).
const contrast = `[...document.querySelectorAll("body *")].filter(e => {
  if (!e.getClientRects().length || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest(":disabled, .skip, .plot, option")) return false;
  const parse = (c) => (c.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  let behind = [255, 255, 255];
  for (let p = e; p; p = p.parentElement) {
    const c = parse(getComputedStyle(p).backgroundColor);
    if (c.length === 3 || c[3] > 0) { behind = c; break; }
  }
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind)];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
}).map(e => e.outerHTML.slice(0, 80)).join("\n")`

// named fails for what can be used but has no name that a screen reader could say.
func (b *browser) named(where string) {
	b.t.Helper()
	tree, err := chromedp.Run(b.ctx, func(ctx context.Context, t *chromedp.Target) (accessibility.GetFullAXTreeResult, error) {
		return cdp.Call(ctx, t, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	})
	if err != nil {
		b.failed(where, err)
	}
	seen := 0
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		switch role := strings.Trim(string(n.Role.Value), `"`); role {
		case "button", "link", "textbox", "combobox", "checkbox", "img", "meter", "table", "dialog", "figure":
			seen++
			if n.Name == nil || strings.Trim(string(n.Name.Value), `"`) == "" {
				b.t.Errorf("%s: a %s has no name", where, role)
			}
		}
	}
	if seen < 5 {
		b.t.Errorf("%s: the accessibility tree has %d things to use", where, seen)
	}
}

// TestPageHeaders: what keeps the page to itself.
func TestPageHeaders(t *testing.T) {
	n := begin(t, "http://127.0.0.1:1/v1", "")
	for _, path := range []string{"/", "/page/app.js", "/page/uPlot.iife.min.js", "/page/app.css"} {
		resp, err := http.Get(n.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		h := resp.Header
		if resp.StatusCode != 200 || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';") || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("X-Frame-Options") != "DENY" || h.Get("Referrer-Policy") != "no-referrer" || strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: %d %v", path, resp.StatusCode, h)
		}
		req, _ := http.NewRequest("GET", n.admin+path, nil)
		req.Header.Set("If-None-Match", h.Get("ETag"))
		again, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		again.Body.Close()
		if again.StatusCode != 304 {
			t.Errorf("%s: %d", path, again.StatusCode)
		}
	}
	for _, path := range []string{"/page/", "/page/none", "/index.html"} {
		if status, _ := n.call("GET", n.admin+path, adminToken, ""); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// TestScreenshots makes the pictures in docs, when UPDATE is set, of a gateway with something to do.
func TestScreenshots(t *testing.T) {
	if os.Getenv("UPDATE") == "" {
		t.Skip("UPDATE is not set")
	}
	dir := t.TempDir()
	fast := provider(t, &mock.Provider{Chunks: 20, ChunkDelay: 15 * time.Millisecond, Delay: 60 * time.Millisecond})
	flaky := provider(t, &mock.Provider{Chunks: 30, ChunkDelay: 10 * time.Millisecond, Delay: 200 * time.Millisecond, FailureRate: .4})
	n := beginIn(t, dir, fmt.Sprintf(`
listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0, token: %s}
keys: {store: %s}
timeouts: {connect: 200ms}
upstreams:
  openai: {base_url: "%s", api_key: secret}
  azure: {base_url: "%s", api_key: secret, auth_header: api-key, max_in_flight: 40}
  canary: {base_url: "http://127.0.0.1:1/v1"}
models:
  gpt-4o: {targets: [{upstream: openai, model: gpt-4o-2024-11-20, weight: 3}, {upstream: azure, model: gpt4o-prod}], fallbacks: [gpt-4o-mini]}
  gpt-4o-mini: {targets: [{upstream: openai}]}
  lab: {targets: [{upstream: azure, model: lab-1}], max_retries: 1}
  next: {targets: [{upstream: canary}], fallbacks: [gpt-4o-mini]}
`, adminToken, filepath.Join(dir, "keys.db"), fast, flaky))
	search := n.key(`{"name":"search team","limits":{"requests":6000,"tokens":200000,"concurrent":50}}`)
	batch := n.key(`{"name":"nightly batch","models":["gpt-4o-mini"],"limits":{"requests":20,"period":"10s"}}`)
	n.key(`{"name":"a former intern","disabled":true}`)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				key, body := search, fmt.Sprintf(`{"model":%q,"stream":%t}`, []string{"gpt-4o", "gpt-4o", "gpt-4o-mini", "next"}[(i+k)%4], i%2 == 0)
				switch {
				case i == 0:
					key, body = batch, `{"model":"gpt-4o-mini"}`
				case i < 3:
					body = []string{`{"model":"lab"}`, `{"model":"lab","stream":true}`, `{"model":"gpt-5o"}`, `{"model":lab}`}[k%4]
				}
				n.call("POST", n.data+"/v1/chat/completions", key, body)
				time.Sleep(time.Duration(200*(i%5+k%3)) * time.Millisecond)
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	b := signedIn(t, n)
	b.colours("light")
	b.do("tall", chromedp.EmulateViewport(1280, 1120))
	time.Sleep(70 * time.Second)
	b.picture("page-overview")
	b.colours("dark")
	time.Sleep(3 * time.Second)
	b.picture("page-overview-dark")
	b.colours("light")
	b.do("less tall", chromedp.EmulateViewport(1280, 700))
	for _, view := range []string{"models", "keys", "errors", "requests"} {
		b.view(view)
		time.Sleep(3 * time.Second)
		b.picture("page-" + view)
	}
	_, failed := n.call("GET", n.admin+"/api/requests?model=lab&error=upstream&limit=50", adminToken, "")
	ref := regexp.MustCompile(`"ref":"(@\d+)"[^}]*"attempts":2`).FindStringSubmatch(failed)
	b.eval(`location.hash = "requests/` + ref[1] + `"`)
	b.do("a request", chromedp.WaitVisible(chromedp.CSS("#request-known")))
	time.Sleep(time.Second)
	b.picture("page-request")
	b.do("a phone", chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
	b.view("keys")
	time.Sleep(3 * time.Second)
	b.picture("page-phone")
}
