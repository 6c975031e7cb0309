package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// topColumn is a column of top.
type topColumn struct {
	title string
	show  func(r *topRow) cell
	// compare is the order that sorting by the column begins with.
	compare func(x, y *topRow) int
	// spare is how soon the column is left out where there is no room for all: the highest first, 0 never.
	spare int
}

// topColumns are those of a kind. The first is its name.
func topColumns(k *topKind) []topColumn {
	return []topColumn{
		{strings.ToUpper(k.by), func(r *topRow) cell { return cell{text: cut(plain(r.Name))} },
			func(x, y *topRow) int { return cmp.Compare(x.Name, y.Name) }, 0},
		topNumber(k.rate, 0, func(r *topRow) float64 { return r.Rate }, perSecond),
		topNumber("P50", 2, func(r *topRow) float64 { return r.P50 }, briefTime),
		topNumber("P99", 0, func(r *topRow) float64 { return r.P99 }, briefTime),
		topNumber("FIRST BYTE", 3, func(r *topRow) float64 { return r.FirstByte }, briefTime),
		topNumber("ERRORS", 1, func(r *topRow) float64 { return float64(r.Errors) }, whole),
		errorRate(),
		topNumber("REFUSED", 4, func(r *topRow) float64 { return float64(r.Refused) }, whole),
		topNumber("IN FLIGHT", 0, func(r *topRow) float64 { return float64(r.InFlight) }, whole),
		{"STATE", func(r *topRow) cell { return cell{plain(r.State), r.style} },
			func(x, y *topRow) int {
				return cmp.Or(cmp.Compare(severity(y), severity(x)), cmp.Compare(y.State, x.State))
			}, 0},
	}
}

// topNumber is a column that sorts by a number, the largest first.
func topNumber(title string, spare int, of func(*topRow) float64, show func(float64) string) topColumn {
	return topColumn{title, func(r *topRow) cell { return cell{text: cmp.Or(show(of(r)), "-")} },
		func(x, y *topRow) int { return cmp.Compare(of(y), of(x)) }, spare}
}

const (
	// From which error rate on it is worth a look, and is bad; the page has the same.
	noticeableErrors, manyErrors = 0.01, 0.05
)

func errorRate() topColumn {
	column := topNumber("ERROR RATE", 0, func(r *topRow) float64 { return r.ErrorRate }, percent)
	column.show = func(r *topRow) cell {
		c := cell{text: percent(r.ErrorRate)}
		switch {
		case r.ErrorRate >= manyErrors:
			c.style = red
		case r.ErrorRate >= noticeableErrors:
			c.style = yellow
		}
		return c
	}
	return column
}

func severity(r *topRow) int { return slices.Index([]style{"", green, yellow, red}, r.style) }

func whole(n float64) string { return strconv.FormatFloat(n, 'f', 0, 64) }

func percent(part float64) string {
	if part == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.1f%%", 100*part)
}

func perSecond(rate float64) string {
	switch {
	case rate == 0:
		return "0"
	case rate < 9.995:
		return fmt.Sprintf("%.2f", rate)
	case rate < 99.95:
		return fmt.Sprintf("%.1f", rate)
	}
	return whole(rate)
}

// topOrder is what the rows are sorted by.
type topOrder struct {
	column  int
	reverse bool
}

// byRate is the order that top begins with.
var byRate = topOrder{column: 1}

func (o topOrder) sort(rows []topRow, columns []topColumn) {
	slices.SortStableFunc(rows, func(x, y topRow) int {
		c := columns[o.column].compare(&x, &y)
		if o.reverse {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID))
	})
}

// topTable is rows as text: titles and lines.
func topTable(rows []topRow, columns []topColumn, order topOrder, width int, colour bool) (title string, lines []string) {
	cells := [][]cell{make([]cell, len(columns))}
	for i, c := range columns {
		cells[0][i] = cell{c.title, bold}
		if i == order.column {
			cells[0][i].text += map[bool]string{false: " ▼", true: " ▲"}[order.reverse != (i == 0)]
		}
	}
	for i := range rows {
		row := make([]cell, len(columns))
		for j, c := range columns {
			row[j] = c.show(&rows[i])
		}
		cells = append(cells, row)
	}
	cells = fitWidth(cells, columns, order.column, width)
	t := columnsOf(cells, colour)
	for i, row := range cells {
		for j := 1; j < len(row)-1; j++ { // numbers stand right
			row[j].text = strings.Repeat(" ", t.widths[j]-utf8.RuneCountInString(row[j].text)) + row[j].text
		}
		line := strings.TrimSuffix(string(t.append(nil, row)), "\n")
		if i == 0 {
			title = line
		} else {
			lines = append(lines, line)
		}
	}
	return title, lines
}

func columnsOf(cells [][]cell, colour bool) *columns {
	t := &columns{colour: colour, widest: longestName}
	for _, row := range cells {
		t.fit(row)
	}
	return t
}

// shortestName is how much of a name is left before a column is left out.
const shortestName = 16

// fitWidth cuts names, and leaves out columns but the sorted one, until the cells fit.
func fitWidth(cells [][]cell, columns []topColumn, sorted, width int) [][]cell {
	left := make([]int, len(columns))
	for i := range left {
		left[i] = i
	}
	for {
		total, widths := -2, columnsOf(cells, false).widths
		for _, w := range widths {
			total += w + 2
		}
		name := max(min(widths[0], shortestName), widths[0]-max(0, total-width))
		out := -1
		for i, at := range left {
			if spare := columns[at].spare; spare > 0 && at != sorted && (out < 0 || spare > columns[left[out]].spare) {
				out = i
			}
		}
		if total-widths[0]+name <= width || out < 0 {
			for _, row := range cells {
				row[0].text = cutTo(row[0].text, name)
			}
			return cells
		}
		left = slices.Delete(left, out, out+1)
		for i := range cells {
			cells[i] = slices.Delete(cells[i], out, out+1)
		}
	}
}
