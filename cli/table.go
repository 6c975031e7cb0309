package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// style is how a cell looks on a terminal: an SGR code of ECMA-48, "" for as it is.
type style string

const (
	bold   style = "1"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

type cell struct {
	text  string
	style style
}

// table lines cells up in columns. The standard library's tabwriter would count the bytes of
// colours.
type table struct {
	colour bool
	rows   [][]cell
}

func newTable(to io.Writer, titles ...string) *table {
	t := &table{colour: coloured(to)}
	if len(titles) > 0 {
		row := make([]cell, len(titles))
		for i, title := range titles {
			row[i] = cell{title, bold}
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// add appends a row of strings, numbers and cells.
func (t *table) add(values ...any) {
	row := make([]cell, len(values))
	for i, v := range values {
		if c, ok := v.(cell); ok {
			row[i] = c
		} else {
			row[i] = cell{text: fmt.Sprint(v)}
		}
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(to io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		for i, c := range row {
			if t.colour && c.style != "" {
				fmt.Fprintf(&b, "\x1b[%sm%s\x1b[0m", c.style, c.text)
			} else {
				b.WriteString(c.text)
			}
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(to, b.String())
	return err
}

// plain is text that does nothing to a terminal, and reads as what it is.
func plain(text string) string {
	const joiners = "\u200c\u200d" // which emoji and some scripts need
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) && !strings.ContainsRune(joiners, r) }) {
		return strconv.Quote(text)
	}
	return text
}

// printJSON prints v as a line, for other programs.
func printJSON(cmd *cobra.Command, v any) error { return json.NewEncoder(cmd.OutOrStdout()).Encode(v) }
