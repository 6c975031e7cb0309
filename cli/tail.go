package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// tailFilters are the flags of tail that narrow what it shows, each with its parameter of the admin port.
var tailFilters = []struct{ flag, param, usage string }{
	{"key", "key", "only requests of the key with this `ID` or name"},
	{"model", "model", "only requests with an attempt at this `MODEL`"},
	{"upstream", "upstream", "only requests with an attempt at this `UPSTREAM`"},
	{"status", "status", "only answers with this `STATUS`, such as 429, or class, such as 5xx"},
	{"kind", "error", "only errors of this `KIND`, such as upstream_timeout, of a family, such as upstream, or any"},
	{"slow", "slow", "only requests that took at least this `TIME`, such as 2s"},
}

func (p *Program) tail() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "show the requests of a running sluice as they end",
		Long: `Show the requests of a running sluice as they end, a line for each, until
Ctrl-C. When the gateway restarts it connects again.`,
		Example: `  sluice tail --status 5xx
  sluice tail --key "search team" --slow 2s
  sluice tail --json | jq .request_id`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return r.tail(cmd) },
	}
	r.bind(cmd)
	for _, f := range tailFilters {
		cmd.Flags().String(f.flag, "", f.usage)
	}
	return cmd
}

func (r *remote) tail(cmd *cobra.Command) error {
	admin, err := r.client(cmd.Context())
	if err != nil {
		return err
	}
	query := url.Values{}
	for _, f := range tailFilters {
		if value, _ := cmd.Flags().GetString(f.flag); value != "" {
			query.Set(f.param, value)
		}
	}
	out := newTailLines(cmd.OutOrStdout(), r.asJSON)
	err = out.header()
	if err == nil {
		f := follower{admin: admin, path: "/api/requests/stream?" + query.Encode(), notes: cmd.ErrOrStderr(),
			show: out.show, unread: out.unread}
		err = f.run(cmd.Context())
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil // the reader has what it wants
	}
	return wrongFilter(cmd, query, err)
}

// wrongFilter makes a parameter that the gateway refuses the flag that it came from.
func wrongFilter(cmd *cobra.Command, query url.Values, err error) error {
	var refused *refusedError
	if !errors.As(err, &refused) || refused.status != http.StatusBadRequest {
		return err
	}
	for _, f := range tailFilters {
		if f.param == refused.param {
			why := strings.TrimPrefix(refused.message, f.param+" ")
			return misuse(cmd, "cannot take %q for --%s: %s", query.Get(f.param), f.flag, why)
		}
	}
	return err
}

// tailLines prints requests, a line for each.
type tailLines struct {
	to     io.Writer
	asJSON bool
	columns
}

// widestTail is how wide a column becomes at most; a longer text moves its own line only.
const widestTail = 40

func newTailLines(to io.Writer, asJSON bool) *tailLines {
	t := &tailLines{to: to, asJSON: asJSON, columns: columns{colour: coloured(to), widest: widestTail}}
	// Most lines of any gateway line up from the first one on.
	t.widths = []int{len("15:04:05.000"), 0, 24, 12, 0, 0, 0, 0, 0}
	t.fit(tailTitles())
	return t
}

func tailTitles() (row []cell) {
	for _, title := range []string{"TIME", "STATUS", "MODEL → UPSTREAM", "KEY", "DURATION", "FIRST BYTE", "TOKENS",
		"ATTEMPTS", "ERROR"} {
		row = append(row, cell{title, bold})
	}
	return row
}

// header prints the titles, for people.
func (t *tailLines) header() error {
	if t.asJSON || !isTerminal(t.to) {
		return nil
	}
	_, err := t.to.Write(t.append(nil, tailTitles()))
	return err
}

// show prints a request as the admin port shows it.
func (t *tailLines) show(text []byte) error {
	if t.asJSON {
		_, err := t.to.Write(append(text, '\n'))
		return err
	}
	var e endedRequest
	if json.Unmarshal(text, &e) != nil {
		return errNoSluice
	}
	row := e.row()
	t.fit(row)
	_, err := t.to.Write(t.append(nil, row))
	return err
}

// unread reports whether what is printed goes to a pipe whose reader has left. A write would find that out
// too, but the next one may be hours away.
func (t *tailLines) unread() bool {
	file, ok := t.to.(*os.File)
	if !ok {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(file.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLERR != 0
}

// endedRequest is a request that is over, as the admin port shows it.
type endedRequest struct {
	Time      time.Time `json:"time"`
	Status    int       `json:"status"`
	Key       string    `json:"key"`
	KeyName   string    `json:"key_name"`
	Model     string    `json:"model"`
	Upstream  string    `json:"upstream"`
	Total     float64   `json:"total"`
	FirstByte float64   `json:"first_byte"`
	TokensIn  *int64    `json:"tokens_in"`
	TokensOut *int64    `json:"tokens_out"`
	Attempts  int       `json:"attempts"`
	Trail     string    `json:"trail"`
	Error     string    `json:"error"`
}

func (e *endedRequest) row() []cell {
	name := cut(plain(e.Model))
	if e.Upstream != "" {
		name += " → " + cut(plain(e.Upstream))
	}
	key := e.KeyName
	if key == "" {
		key = e.Key
	}
	tokens := ""
	if e.TokensIn != nil && e.TokensOut != nil {
		tokens = fmt.Sprintf("%d/%d", *e.TokensIn, *e.TokensOut)
	}
	row := []cell{{text: e.Time.Local().Format("15:04:05.000")}, {strconv.Itoa(e.Status), statusStyle(e.Status)},
		{text: name}, {text: cut(plain(key))}, {text: briefTime(e.Total)}, {text: briefTime(e.FirstByte)}, {text: tokens},
		{text: strconv.Itoa(e.Attempts)}, {text: e.Error, style: red}}
	for i := range row {
		if row[i].text == "" {
			row[i] = cell{text: "-"}
		}
	}
	if e.Attempts > 1 {
		row = append(row, cell{text: plain(e.Trail)})
	}
	return row
}

func statusStyle(status int) style {
	switch {
	case status >= 500:
		return red
	case status >= 400:
		return yellow
	}
	return green
}

// longestName is how much of a name a line has.
const longestName = 60

func cut(text string) string { return cutTo(text, longestName) }

func cutTo(text string, most int) string {
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most-1]) + "…"
	}
	return text
}

// briefTime shows seconds with three digits, "" for none.
func briefTime(seconds float64) string {
	switch ms := seconds * 1000; {
	case seconds <= 0:
		return ""
	case ms < 9.995:
		return fmt.Sprintf("%.2fms", ms)
	case ms < 99.95:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0fms", ms)
	case seconds < 9.995:
		return fmt.Sprintf("%.2fs", seconds)
	case seconds < 99.95:
		return fmt.Sprintf("%.1fs", seconds)
	}
	return fmt.Sprintf("%.0fs", seconds)
}
