package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// topScreen is what top shows on a terminal, and what its keys change.
type topScreen struct {
	ctx    context.Context
	admin  *client
	every  time.Duration
	colour bool

	kind   int                     // of topKinds
	orders [len(topKinds)]topOrder // each kind has its own
	scroll int                     // rows above the first that is shown
	width  int
	height int

	data *topData // nil until it has come
	err  error    // of the newest look
	// turn is the number of the look that is wanted: what comes of an older one is dropped. cancel ends it.
	turn   int
	cancel context.CancelFunc
}

type (
	// topLooked is a look that has ended.
	topLooked struct {
		turn int
		data *topData
		err  error
	}
	// topDue: the next look is due.
	topDue struct{ turn int }
)

func newTopScreen(ctx context.Context, admin *client, every time.Duration, colour bool) *topScreen {
	s := &topScreen{ctx: ctx, admin: admin, every: every, colour: colour, width: helpWidth, height: 24, cancel: func() {}}
	for i := range s.orders {
		s.orders[i] = byRate
	}
	return s
}

func (s *topScreen) end() { s.cancel() }

// Init waits for the second look: the first one has been before there was a screen.
func (s *topScreen) Init() tea.Cmd { return s.wait() }

// Update does what an event asks for.
func (s *topScreen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return s, s.press(msg.String())
	case topDue:
		if msg.turn == s.turn {
			return s, s.look()
		}
	case topLooked:
		if msg.turn == s.turn {
			if s.err = msg.err; msg.err == nil {
				s.take(msg.data)
			}
			return s, s.wait()
		}
	}
	s.bound()
	return s, nil
}

func (s *topScreen) take(d *topData) {
	s.data = d
	s.sort()
	s.bound()
}

// look asks the gateway.
func (s *topScreen) look() tea.Cmd {
	s.cancel()
	s.turn++
	ctx, cancel := context.WithCancel(s.ctx)
	s.cancel = cancel
	turn, kind, admin := s.turn, &topKinds[s.kind], s.admin
	return func() tea.Msg {
		d, err := kind.look(ctx, admin)
		return topLooked{turn, d, err}
	}
}

func (s *topScreen) wait() tea.Cmd {
	turn := s.turn
	return tea.Tick(s.every, func(time.Time) tea.Msg { return topDue{turn} })
}

// press does what a key is for.
func (s *topScreen) press(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "tab":
		return s.show((s.kind + 1) % len(topKinds))
	case "shift+tab":
		return s.show((s.kind + len(topKinds) - 1) % len(topKinds))
	case "1", "2", "3":
		return s.show(int(key[0] - '1'))
	case "s", ">", "right":
		s.move(1)
	case "<", "left":
		s.move(-1)
	case "r":
		s.orders[s.kind].reverse = !s.orders[s.kind].reverse
	case "up", "k":
		s.scroll--
	case "down", "j":
		s.scroll++
	case "pgup":
		s.scroll -= s.room()
	case "pgdown":
		s.scroll += s.room()
	case "home":
		s.scroll = 0
	}
	s.sort()
	s.bound()
	return nil
}

// show turns to another kind, whose rows must be asked for.
func (s *topScreen) show(kind int) tea.Cmd {
	if kind == s.kind {
		return nil
	}
	s.kind, s.scroll, s.data, s.err = kind, 0, nil, nil
	return s.look()
}

// move sorts by a column further right or left.
func (s *topScreen) move(by int) {
	n := len(topColumns(&topKinds[s.kind]))
	s.orders[s.kind] = topOrder{column: (s.orders[s.kind].column + by + n) % n}
}

func (s *topScreen) sort() {
	if s.data != nil {
		s.orders[s.kind].sort(s.data.rows, topColumns(&topKinds[s.kind]))
	}
}

// topMargin is how many lines of the screen are no rows.
const topMargin = 5

// room is how many rows the screen has.
func (s *topScreen) room() int { return max(1, s.height-topMargin) }

// bound keeps the last page full.
func (s *topScreen) bound() {
	rows := 0
	if s.data != nil {
		rows = len(s.data.rows)
	}
	s.scroll = max(0, min(s.scroll, rows-s.room()))
}

// View draws the screen.
func (s *topScreen) View() tea.View {
	lines := []string{s.state(), s.tabs(), ""}
	if s.data != nil {
		title, rows := topTable(s.data.rows, topColumns(&topKinds[s.kind]), s.orders[s.kind], s.width, s.colour)
		rows = rows[s.scroll:]
		lines = append(append(lines, title), rows[:min(len(rows), s.room())]...)
	}
	for len(lines) < s.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, "tab, 1 2 3: show   < >: sort   r: turn the order   ↑ ↓: scroll   q: end")
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}

// state is how the gateway is, or why that is not known.
func (s *topScreen) state() string {
	switch {
	case s.err != nil:
		what := s.err.Error()
		if s.data != nil {
			what = "as of " + s.data.at.Format(time.TimeOnly) + ": " + what
		}
		return s.styled(plain(what), red)
	case s.data == nil:
		return "…"
	}
	d := s.data
	line := fmt.Sprintf("sluice %s at %s   ", plain(d.status.Version), s.admin.base)
	if d.status.Ready {
		line += s.styled("takes traffic", green)
	} else {
		line += s.styled("takes no traffic", red)
	}
	line += fmt.Sprintf("   in flight: %d   last %.0f s   %s", d.status.InFlight, d.window.Seconds(), d.at.Format(time.TimeOnly))
	if d.status.Error != "" {
		line += "   " + s.styled("the newest configuration is not in effect", red)
	}
	return line
}

func (s *topScreen) tabs() string {
	var tabs []string
	for i, kind := range topKinds {
		tab := fmt.Sprintf(" %d %s ", i+1, kind.plural)
		if i == s.kind {
			tab = s.styled(fmt.Sprintf("[%d %s]", i+1, kind.plural), bold)
		}
		tabs = append(tabs, tab)
	}
	return strings.Join(tabs, " ")
}

func (s *topScreen) styled(text string, style style) string {
	if !s.colour {
		return text
	}
	return fmt.Sprintf("\x1b[%sm%s\x1b[0m", style, text)
}
