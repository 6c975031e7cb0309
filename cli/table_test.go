package cli

import (
	"os"
	"strings"
	"testing"
)

// TestTable: columns line up with colours and without, and what others named does nothing to a terminal.
func TestTable(t *testing.T) {
	for _, test := range []struct {
		colour bool
		want   string
	}{
		{false, "NAME   STATE   N\nübung  active  5\n"},
		{true, "\x1b[1mNAME\x1b[0m   \x1b[1mSTATE\x1b[0m   \x1b[1mN\x1b[0m\nübung  \x1b[32mactive\x1b[0m  5\n"},
	} {
		table := newTable(new(strings.Builder), "NAME", "STATE", "N")
		table.colour = test.colour
		table.add("übung", cell{"active", green}, 5)
		var out strings.Builder
		if err := table.print(&out); err != nil {
			t.Fatal(err)
		}
		if out.String() != test.want {
			t.Errorf("got %q\nwant %q", out.String(), test.want)
		}
	}
	if got := plain("\x1b]0;x\x07"); got != `"\x1b]0;x\a"` {
		t.Errorf("%s", got)
	}
}

// TestColours are for terminals, and not where NO_COLOR or a dumb terminal says otherwise.
func TestColours(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if coloured(new(strings.Builder)) || coloured(file) {
		t.Error("colours in a file")
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer terminal.Close()
	for _, test := range []struct {
		noColour, term string
		want           bool
	}{{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}} {
		t.Setenv("NO_COLOR", test.noColour)
		t.Setenv("TERM", test.term)
		if got := coloured(terminal); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
