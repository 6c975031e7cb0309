package proxy

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sluice/pool"
)

// What docs/resilience.md says in the columns "another target", "retried", "configured fallback" and
// "client's sequence" of each verdict.
var nextTexts = map[verdict]string{
	again:       "by a retry yes yes yes",
	otherTarget: "at once no yes yes",
	onward:      "no no yes yes",
	over:        "no no no no",
}

var (
	causeName   = regexp.MustCompile("`([a-z_]+)`")
	statusRange = regexp.MustCompile(`\b(\d{3})(?: to (\d{3}))?`)
)

// TestDocsHaveTheCauses: the table in docs/resilience.md says of each cause and status what the tables here
// do. Its two rows of what has no cause or status of its own are left out.
func TestDocsHaveTheCauses(t *testing.T) {
	text, err := os.ReadFile("../docs/resilience.md")
	if err != nil {
		t.Fatal(err)
	}
	causes := map[string]pool.Cause{}
	for c := range causeRules {
		causes[pool.Cause(c).String()] = pool.Cause(c)
	}
	_, table, _ := strings.Cut(string(text), "| what happened (`error`) |")
	said, statuses := map[pool.Cause]bool{}, 0
	for _, row := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		if len(cells) != 6 {
			break
		}
		what, next, breaker := cells[0], strings.Join(cells[1:5], " "), cells[5]
		if strings.Contains(what, "`choices`") || strings.Contains(what, "a later event") {
			continue
		}
		if strings.HasPrefix(what, "`status`") || strings.HasPrefix(what, "any other `status`") {
			what, _, _ = strings.Cut(what, ":")
			for _, m := range statusRange.FindAllStringSubmatch(strings.TrimPrefix(what, "any other `status` from 400"), -1) {
				first, _ := strconv.Atoi(m[1])
				last, _ := strconv.Atoi(m[2])
				for status := first; status <= max(first, last); status++ {
					statuses++
					v, outcome := statusRule(status)
					want := nextTexts[v]
					if ownFault(status) {
						want = "no no no yes" // the client's sequence goes on
					}
					if next != want || (outcome == pool.Failed) != (breaker == "failure" || breaker == "from 500 on" && status >= 500) {
						t.Errorf("status %d: the docs say %s, %s; the code %s, %v", status, next, breaker, want, outcome)
					}
				}
			}
			said[pool.StatusRefused] = true
			continue
		}
		for _, m := range causeName.FindAllStringSubmatch(what, -1) {
			c, known := causes[m[1]]
			if !known {
				continue
			}
			said[c] = true
			rule := &causeRules[c]
			if want := nextTexts[rule.next]; next != want || (rule.target == pool.Failed) != (breaker == "failure") {
				t.Errorf("%s: the docs say %s, %s; the code %s, %v", c, next, breaker, want, rule.target)
			}
		}
	}
	if statuses < 20 {
		t.Errorf("%d statuses", statuses)
	}
	for name, c := range causes {
		if causeRules[c].text == "" {
			t.Errorf("%s has no row", name)
		}
		if !said[c] && c != pool.StreamBroken { // which nothing follows
			t.Errorf("the docs do not say what %s means", name)
		}
	}
}
