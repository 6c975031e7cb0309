package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
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
	c := columns{colour: t.colour, widest: math.MaxInt}
	for _, row := range t.rows {
		c.fit(row)
	}
	var b []byte
	for _, row := range t.rows {
		b = c.append(b, row)
	}
	_, err := to.Write(b)
	return err
}

// columns lines up rows that are printed one by one: a column becomes wider with what is in it.
type columns struct {
	colour bool
	widest int // no column becomes wider than this
	widths []int
}

// fit widens the columns for row.
func (c *columns) fit(row []cell) {
	for i, cell := range row {
		if i == len(c.widths) {
			c.widths = append(c.widths, 0)
		}
		if width := utf8.RuneCountInString(cell.text); width <= c.widest {
			c.widths[i] = max(c.widths[i], width)
		}
	}
}

// append appends row, which fit has seen, as a line.
func (c *columns) append(b []byte, row []cell) []byte {
	for i, cell := range row {
		if c.colour && cell.style != "" {
			b = fmt.Appendf(b, "\x1b[%sm%s\x1b[0m", cell.style, cell.text)
		} else {
			b = append(b, cell.text...)
		}
		if i < len(row)-1 {
			room := max(0, c.widths[i]-utf8.RuneCountInString(cell.text))
			b = append(b, strings.Repeat(" ", room+2)...)
		}
	}
	return append(b, '\n')
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
