package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is who may import whom among this module's packages: each row its reason. The
// standard library and third parties are free to all.
var floors = map[string]struct {
	may []string
	why string
}{
	"sluice":                       {[]string{"admin", "cli", "config", "history", "keys", "keys/shared", "metrics", "mock", "pool", "proxy"}, "main wires everything; the provider answers in its demo"},
	"sluice/admin":                 {[]string{"config", "history", "keys", "metrics", "pool", "proxy", "record"}, "shows and changes what the others hold; nothing depends on being administered"},
	"sluice/bench/scale":           {nil, "arithmetic about the rules of keys; imports nothing"},
	"sluice/cli":                   {[]string{"config", "mock"}, "a client of the admin port, as curl is; reads and writes the file, and its command mock is the provider"},
	"sluice/deploy/manual":         {[]string{"cli"}, "writes down what the commands say of themselves; a module of its own, for the writer of man pages"},
	"sluice/proxy":                 {[]string{"client", "config", "jsontext", "keys", "limiter", "metrics", "pool", "record", "sse"}, "a request goes through all of these; none of them knows of requests"},
	"sluice/record":                {[]string{"jsontext"}, "is told of requests in plain values; knows nobody who tells or asks"},
	"sluice/history":               {[]string{"metrics", "record"}, "adds up what is recorded, over time; reads gauges"},
	"sluice/client":                {[]string{"limiter", "pool"}, "the client's side of the wire; knows whom it would abort only as an interface"},
	"sluice/pool":                  {[]string{"config", "limiter", "metrics"}, "knows upstreams, and what bounds them; not who asks for them or why"},
	"sluice/keys":                  {[]string{"limiter"}, "a key carries its meters; it knows neither HTTP nor models, nor who counts with it"},
	"sluice/keys/shared":           {[]string{"keys", "limiter"}, "counts together with other nodes; main alone knows that there is such a thing"},
	"sluice/config":                {nil, "what the file says, for everybody above"},
	"sluice/limiter":               {nil, "counts; knows no key, no request, no clock"},
	"sluice/jsontext":              {nil, "text in, places in it out; knows no member by name"},
	"sluice/sse":                   {nil, "bytes in, bytes out; knows no JSON and no provider"},
	"sluice/metrics":               {nil, "declares series; what they mean is where they are counted"},
	"sluice/e2e":                   {[]string{"mock"}, "drives the program as a process; a module of its own, so that what only it needs is not in this one"},
	"sluice/e2e/sdk":               {nil, "drives the built binary with the providers' SDKs; in a module of its own, so that they are not in this one"},
	"sluice/bench":                 {nil, "drives the built binary over the network, and others beside it; knows nothing of its inside"},
	"sluice/mock":                  {nil, "stands outside the house, as a provider does"},
	"sluice/internal/growth":       {[]string{"internal/upstreamtest"}, "measures work of which it knows nothing"},
	"sluice/internal/upstreamtest": {nil, "what tests have around them; knows nothing of the house"},
}

// testFloors are imports that tests may have beyond their package's.
var testFloors = []string{"internal/growth", "internal/upstreamtest"}

func TestImportsPointDown(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		pkg := strings.TrimSuffix("sluice/"+filepath.ToSlash(filepath.Dir(path)), "/.")
		seen[pkg] = true
		row, known := floors[pkg]
		if !known {
			t.Errorf("%s has no floor; give it a row with its reason", pkg)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		may := row.may
		if strings.HasSuffix(path, "_test.go") {
			may = slices.Concat(may, testFloors)
		}
		for _, spec := range file.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			if to, ours := strings.CutPrefix(name, "sluice/"); ours && !slices.Contains(may, to) {
				t.Errorf("%s imports %s, but %s", path, name, row.why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range floors {
		if !seen[pkg] {
			t.Errorf("%s has a floor but no files", pkg)
		}
	}
}
