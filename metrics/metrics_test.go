package metrics

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestEverySeriesIsDocumented, and no other.
func TestEverySeriesIsDocumented(t *testing.T) {
	names := func(path, pattern string) []string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(b), -1) {
			list = append(list, m[1])
		}
		slices.Sort(list)
		return list
	}
	declared := slices.Sorted(slices.Values(append(names("metrics.go", `"(sluice_[a-z_]+)"`), names("gauges.go", `"(sluice_[a-z_]+)"`)...)))
	documented := names("../docs/metrics.md", "(?m)^\\| `(sluice_[a-z_]+)` ")
	if len(declared) == 0 || !slices.Equal(declared, documented) {
		t.Errorf("declared:   %v\ndocumented: %v", declared, documented)
	}
}
