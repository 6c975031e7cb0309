package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"sluice/internal/upstreamtest"
)

// fakeGateway answers what top asks for.
type fakeGateway struct {
	*httptest.Server
	down atomic.Bool
}

func startFake(t *testing.T) *fakeGateway {
	t.Setenv("SLUICE_ADMIN_TOKEN", "0123456789abcdef")
	// A minute of six steps, of which the last is half over, and the process has counted for 40 s.
	series := func(data string) string {
		return `{"times":[60,70,80,90,100,110],"last_step_seconds":5,"since":75,"data":[` + data + `]}`
	}
	answers := map[string]string{
		"/api/status": `{"version":"v1","ready":true,"in_flight":7}`,
		"/api/series?range=1m&top=100&by=model": series(`{"name":"busy","values":{"requests":[0,0,100,0,300,0],
			"errors_upstream":[0,0,6,0,0,0],"errors_gateway":[0,0,0,0,2,0],"errors_caller":[0,0,1,0,0,0],"errors_policy":[0,0,0,0,1,0],
			"duration_p50":[null,null,0.5,null,0.1,null],"duration_p99":[null,null,2,null,1,null],
			"first_byte_p99":[null,null,0.02,null,0.03,null]}},
			{"name":"gone","values":{"requests":[0,0,0,0,40,0]}}`),
		"/api/models": `{"data":[{"id":"quiet","targets":[{"breaker":"closed","in_flight":2},{"breaker":"closed","in_flight":3}]},
			{"id":"busy","targets":[{"breaker":"open","serves_in_seconds":3,"in_flight":1},{"breaker":"closed"},
				{"breaker":"closed","serves_in_seconds":9},{"breaker":"half_open"},{"breaker":"closed","drained":true},
				{"breaker":"closed","credential_refused":true},{"breaker":"closed","credential":"not set"}]}]}`,
		"/api/series?range=1m&top=100&by=upstream": series(`{"name":"up","values":{"requests":[0,0,0,0,4,0],"errors_upstream":[0,0,0,0,4,0]}}`),
		"/api/upstreams": `{"data":[{"name":"up","in_flight":4,"targets":[{"breaker":"open"}]},{"name":"out","drained":true,"targets":[{"breaker":"closed"}]}]}`,
		"/api/series?range=1m&top=100&by=key": series(`{"name":"key_1","label":"team","values":{"requests":[0,0,0,0,4,0],"errors_policy":[0,0,0,0,4,0]}},
			{"name":"key_9","label":"one of many","values":{"requests":[0,0,0,0,8,0]}}`),
		"/api/keys?sort=-in_flight&limit=100": `{"data":[{"id":"key_1","name":"team","in_flight":1},{"id":"key_2","name":"\u001b[2J","disabled":true}]}`,
	}
	f := &fakeGateway{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, known := answers[r.URL.String()]
		if !known || f.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			answer = `{"error":{"message":"the gateway is \u001b[2Jdown"}}`
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(f.Close)
	return f
}

// TestTopOnce: rates are of the time in which was counted, errors are those of upstreams and the gateway,
// and what is configured is there without a request.
func TestTopOnce(t *testing.T) {
	gateway := startFake(t)
	for by, want := range map[string]string{
		"model": `MODEL  REQ/S ▼    P50    P99  FIRST BYTE  ERRORS  ERROR RATE  REFUSED  IN FLIGHT  STATE
busy      10.0  200ms  2.00s      30.0ms       8        2.0%        2          1  1 credential not set, 1 credential refused, 1 open, 1 half open, 1 resting, 1 drained, 1 closed
gone      1.00      -      -           -       0          0%        0          0  -
quiet        0      -      -           -       0          0%        0          5  closed
`,
		"upstream": `UPSTREAM  ATTEMPTS/S ▼  P50  P99  FIRST BYTE  ERRORS  ERROR RATE  REFUSED  IN FLIGHT  STATE
up                0.10    -    -           -       4      100.0%        0          4  open
out                  0    -    -           -       0          0%        0          0  drained
`,
		"key": `KEY          REQ/S ▼  P50  P99  FIRST BYTE  ERRORS  ERROR RATE  REFUSED  IN FLIGHT  STATE
one of many     0.20    -    -           -       0          0%        0          0  -
team            0.10    -    -           -       0          0%        4          1  active
"\x1b[2J"          0    -    -           -       0          0%        0          0  disabled
`,
	} {
		var out, notes upstreamtest.Buffer
		if err := shell(t.Context(), &out, &notes, gateway.URL, "top", "--once", "--by", by); err != nil || out.String() != want || notes.String() != "" {
			t.Errorf("%v %s\ngot\n%s\nwant\n%s", err, &notes, &out, want)
		}
	}
	var out, notes upstreamtest.Buffer
	if err := shell(t.Context(), &out, &notes, gateway.URL, "top", "--once", "--json", "--by", "key"); err != nil {
		t.Fatal(err)
	}
	var v struct {
		By     string
		Window float64 `json:"window_seconds"`
		Data   []struct {
			ID, Name, State string
			Rate            float64 `json:"requests_per_second"`
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &v); err != nil || v.By != "key" || v.Window != 40 || len(v.Data) != 3 || v.Data[1].ID != "key_1" || v.Data[1].Name != "team" || v.Data[1].Rate != 0.1 {
		t.Errorf("%v %+v", err, v)
	}
	gateway.down.Store(true)
	if err := shell(t.Context(), &out, &notes, gateway.URL, "top", "--once"); err == nil || ExitCode(err) != exitFailed {
		t.Errorf("%v", err)
	}
}

// TestTopWindow: what was counted before the process began counts for no time.
func TestTopWindow(t *testing.T) {
	times := []int64{60, 70, 80, 90, 100, 110}
	for _, test := range []struct {
		since int64
		last  float64
		want  time.Duration
	}{{0, 5, 55 * time.Second}, {75, 5, 40 * time.Second}, {112, 5, 3 * time.Second}, {114, 4, time.Second}} {
		if got := (&lastMinute{Times: times, Since: test.since, LastStep: test.last}).window(); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// TestTopThatCannotBegin: one line, and the exit code of a wrong command line.
func TestTopThatCannotBegin(t *testing.T) {
	for line, want := range map[string]string{
		"top":                      "sluice top needs a terminal; sluice top --once prints one table without; see sluice top --help",
		"top --json":               "sluice top prints JSON with --once only; see sluice top --help",
		"top --once --by models":   `sluice top cannot take "models" for --by: must be model, upstream or key; see sluice top --help`,
		"top --once --every 100ms": "sluice top needs --every of at least 500ms; see sluice top --help",
	} {
		var out upstreamtest.Buffer
		err := shell(t.Context(), &out, &out, "http://127.0.0.1:1", strings.Fields(line)...)
		if err == nil || err.Error() != want || ExitCode(err) != exitMisuse || out.String() != "" {
			t.Errorf("%s: %v, exit code %d, want %s", line, err, ExitCode(err), want)
		}
	}
}

// press has the screen take keys and what they lead to.
func press(t *testing.T, s *topScreen, keys ...string) {
	t.Helper()
	for _, key := range keys {
		msg := tea.KeyPressMsg{Text: key, Code: []rune(key)[0]}
		switch key {
		case "tab":
			msg = tea.KeyPressMsg{Code: tea.KeyTab}
		case "right":
			msg = tea.KeyPressMsg{Code: tea.KeyRight}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		}
		if _, cmd := s.Update(msg); cmd != nil {
			s.Update(cmd())
		}
	}
}

// lines are the screen's: the fourth has the titles.
func lines(s *topScreen) []string { return strings.Split(s.View().Content, "\n") }

func startScreen(t *testing.T, gateway *fakeGateway) *topScreen {
	t.Helper()
	admin, err := newClient(gateway.URL, "0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	s := newTopScreen(t.Context(), admin, time.Second, false)
	t.Cleanup(s.end)
	s.Update(s.look()())
	s.Update(tea.WindowSizeMsg{Width: 120, Height: 10})
	return s
}

// TestTopKeys: what the keys change is on the screen.
func TestTopKeys(t *testing.T) {
	s := startScreen(t, startFake(t))
	for _, test := range []struct{ keys, title, first string }{
		{"", "REQ/S ▼", "busy"},
		{"r", "REQ/S ▲", "quiet"},
		{"<", "MODEL ▲", "busy"},
		{"r", "MODEL ▼", "quiet"},
		{"<", "STATE ▼", "busy"},
		{"<", "IN FLIGHT ▼", "quiet"},
		{"right s", "MODEL ▲", "busy"},
		{"tab", "ATTEMPTS/S ▼", "up"},
		{">", "P50 ▼", "out"},
		{"3", "KEY", "one of many"},
		{"1", "MODEL ▲", "busy"}, // as it was
	} {
		press(t, s, strings.Fields(test.keys)...)
		if got := lines(s); !strings.Contains(got[3], test.title) || !strings.HasPrefix(got[4], test.first) {
			t.Errorf("after %q: no %s first, or no %s in\n%s", test.keys, test.first, test.title, strings.Join(got, "\n"))
		}
	}
	for _, key := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		if _, cmd := s.Update(key); cmd == nil || cmd() != (tea.QuitMsg{}) {
			t.Errorf("%s does not end it", key)
		}
	}
}

// TestTopSizes: the screen is as high as the terminal, columns that are not sorted by go where there is no
// room, and rows scroll.
func TestTopSizes(t *testing.T) {
	s := startScreen(t, startFake(t))
	s.data.rows = s.data.rows[1:] // without the long state
	for _, test := range []struct {
		width, height int
		title         string
	}{
		{120, 30, "MODEL  REQ/S ▼  P50  P99  FIRST BYTE  ERRORS  ERROR RATE  REFUSED  IN FLIGHT  STATE"},
		{80, 24, "MODEL  REQ/S ▼  P50  P99  FIRST BYTE  ERRORS  ERROR RATE  IN FLIGHT  STATE"},
		{60, 24, "MODEL  REQ/S ▼  P99  ERRORS  ERROR RATE  IN FLIGHT  STATE"},
		{20, 6, "MODEL  REQ/S ▼  P99  ERROR RATE  IN FLIGHT  STATE"}, // the rest is cut
	} {
		s.Update(tea.WindowSizeMsg{Width: test.width, Height: test.height})
		if got := lines(s); len(got) != test.height || got[3] != test.title {
			t.Errorf("%+v: %d lines\n%s", test, len(got), strings.Join(got, "\n"))
		}
	}
	s.orders[0].column = 7
	if got := lines(s); got[3] != "MODEL  REQ/S  P99  ERROR RATE  REFUSED ▼  IN FLIGHT  STATE" {
		t.Errorf("without what it is sorted by:\n%s", got[3])
	}
	s.orders[0] = byRate
	for _, want := range []string{"quiet", "quiet"} { // the last row is the end
		press(t, s, "down")
		if got := lines(s); !strings.HasPrefix(got[4], want) {
			t.Errorf("got\n%s", strings.Join(got, "\n"))
		}
	}
	s.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	if got := lines(s); !strings.HasPrefix(got[4], "gone") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	s.data.rows[0].Name = strings.Repeat("name", 20)
	if got := lines(s)[4]; !strings.HasPrefix(got, "namenamenamename") || !strings.Contains(got, "…  ") || len([]rune(got)) > 80 {
		t.Errorf("%s", got)
	}
}

// TestTopThatLosesTheGateway: the last look stays, with its time and what is wrong, and what an older look
// brings is dropped.
func TestTopThatLosesTheGateway(t *testing.T) {
	gateway := startFake(t)
	s := startScreen(t, gateway)
	gateway.down.Store(true)
	_, next := s.Update(s.look()())
	if got := lines(s); next == nil || !strings.HasPrefix(got[0], `"as of `) || !strings.HasSuffix(got[0], `: the gateway is \x1b[2Jdown"`) || !strings.HasPrefix(got[4], "busy") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	gateway.down.Store(false)
	old := s.look()
	press(t, s, "2")
	if _, cmd := s.Update(old()); cmd != nil || !strings.HasPrefix(lines(s)[4], "up") || s.err != nil {
		t.Errorf("an old look counts: %v\n%s", s.err, s.View().Content)
	}
	if _, cmd := s.Update(topDue{s.turn - 1}); cmd != nil {
		t.Error("an old timer has it look")
	}
	if _, cmd := s.Update(topDue{s.turn}); cmd == nil {
		t.Error("it does not look again")
	}
}

// TestTopEndsAnOldLook: a look that nobody wants any more is not waited for.
func TestTopEndsAnOldLook(t *testing.T) {
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer gateway.Close()
	admin, err := newClient(gateway.URL, "0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	s := newTopScreen(context.Background(), admin, time.Second, false)
	look := s.look()
	ended := make(chan tea.Msg)
	go func() { ended <- look() }()
	s.show(1)
	if msg := (<-ended).(topLooked); msg.err == nil || msg.turn == s.turn {
		t.Errorf("%+v", msg)
	}
	s.end()
}
