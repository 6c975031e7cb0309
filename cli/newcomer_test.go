package cli

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestWrongValues: a value that a flag or an argument cannot take ends with 2, and the line says which it
// takes in words of this program, not of a parser.
func TestWrongValues(t *testing.T) {
	folder(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"demo", "--port", "x"}, `demo cannot take "x" for --port: must be a whole number from 0 to 65535;`},
		{[]string{"demo", "--port", "65536"}, `demo cannot take "65536" for --port: must be a whole number from 0 to 65535;`},
		{[]string{"demo", "--admin-port", "-1"}, `demo cannot take "-1" for --admin-port: must be a whole number from 0 to 65535;`},
		{[]string{"mock", "--chunks", "few"}, "for --chunks: must be a whole number;"},
		{[]string{"mock", "--delay", "5"}, "for --delay: must be a duration such as 500ms or 2s;"},
		{[]string{"mock", "--failure-rate", "some"}, "for --failure-rate: must be a number;"},
		{[]string{"status", "--json=maybe"}, "for --json: must be true or false;"},
		{[]string{"keys", "create", "--disabled=maybe"}, "for --disabled: must be true or false;"},
		{[]string{"keys", "show", ""}, "keys show takes the id of one key, not an empty word;"},
		{[]string{"keys", "revoke", ""}, "keys revoke takes the id of one key, not an empty word;"},
		{[]string{"upstreams", "drain", ""}, "drain takes the name of one upstream, or UPSTREAM/TARGET, not an empty word;"},
		{[]string{"check", ""}, "check takes one file, not an empty word;"},
	} {
		_, err := sluice(test.args...)
		if err == nil || !strings.Contains(err.Error(), test.want) || ExitCode(err) != 2 {
			t.Errorf("%q: %v, want %s", test.args, err, test.want)
		}
	}
}

// TestWrongTokenOrPort: what an admin port answers a stranger, or a data port answers anyone, is said in
// terms of the command line.
func TestWrongTokenOrPort(t *testing.T) {
	folder(t)
	t.Setenv("SLUICE_ADMIN_TOKEN", "of-another-sluice")
	for _, test := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"a wrong token", 401, `{"error":{"message":"send Authorization: Bearer ADMIN_TOKEN"}}`, "refuses the admin token; give the admin.token of the sluice that runs there"},
		{"the data port", 404, `{"error":{"message":"there is nothing at this path; POST /v1/…"}}`, " is the data port; name the admin port with SLUICE_ADMIN or --admin"},
		{"an older sluice", 404, `{"error":{"message":"there is nothing at this path"}}`, "there is nothing at this path"},
		{"no such key", 404, `{"error":{"message":"no key has this id"}}`, "no key has this id"},
		{"another program", 404, `404 page not found`, "answered 404, and not as a sluice does"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			_, _ = w.Write([]byte(test.body))
		}))
		_, err := sluice("keys", "show", "k", "--admin", server.URL)
		server.Close()
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "of-another") || ExitCode(err) != 1 {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
}

// TestCompletionOfWords: files are offered where a command takes one, and nowhere else.
func TestCompletionOfWords(t *testing.T) {
	for words, want := range map[string]string{
		"status": ":4", "keys list": ":4", "keys show": ":4", "upstreams drain": ":4", "demo --port": ":4", "status --admin": ":4", "check a": ":4",
		"check": ":0", "init": ":0", "keys import": ":0", "status --token-file": ":0", "check --config": ":8", "demo --data": ":16",
	} {
		out, err := sluice(append(append([]string{"__complete"}, strings.Fields(words)...), "")...)
		if err != nil || !strings.Contains("\n"+out, "\n"+want+"\n") {
			t.Errorf("%s: %v %s, want %s", words, err, out, want)
		}
	}
}

// TestInitPrintsWhatCanBePasted: the commands that it names begin as the program itself was started.
func TestInitPrintsWhatCanBePasted(t *testing.T) {
	folder(t)
	var out strings.Builder
	p := &Program{Name: "./sluice", Stdout: &out, Stderr: &out}
	if err := p.Run(t.Context(), []string{"init"}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"  ./sluice check\n", "  ./sluice mock &\n", "  ./sluice\n", "  key=$(./sluice keys create --name me"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("there is no %q in\n%s", line, &out)
		}
	}
	_, err := sluice("init", "no/folder/config.yaml")
	if err == nil || !strings.Contains(err.Error(), "cannot write no/folder/config.yaml into a folder that is not there") {
		t.Errorf("into a folder that is not there: %v", err)
	}
	if _, err := os.Stat("no"); err == nil {
		t.Error("it has made a folder")
	}
}

// TestReloadSaysWhatWaits: a reload names the fields that only a restart makes effective.
func TestReloadSaysWhatWaits(t *testing.T) {
	folder(t)
	t.Setenv("SLUICE_ADMIN_TOKEN", "token")
	for body, want := range map[string]string{
		`{"generation":2,"restart":[]}`:                       "configuration 2 is in effect\n",
		`{"generation":3,"restart":["listen","limits.head"]}`: "configuration 3 is in effect; at the next start only: listen, limits.head\n",
		`{"generation":4}`:                                    "configuration 4 is in effect\n", // an older sluice
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		out, err := sluice("reload", "--admin", server.URL)
		server.Close()
		if err != nil || out != want {
			t.Errorf("%s: %v %q, want %q", body, err, out, want)
		}
	}
}

// failingWriter is a standard output whose disk is full.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// TestSecretThatCannotBePrinted: a key whose secret nobody has seen is named, with the way to another secret.
func TestSecretThatCannotBePrinted(t *testing.T) {
	folder(t)
	t.Setenv("SLUICE_ADMIN_TOKEN", "token")
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = string(body)
		w.WriteHeader(201)
		_, _ = io.WriteString(w, `{"id":"key_1","name":"n","note":"who to ask","key":"sk-secret"}`)
	}))
	defer server.Close()
	t.Setenv("SLUICE_ADMIN", server.URL)
	for _, args := range [][]string{{"keys", "create", "--name", "n"}, {"keys", "create", "--name", "n", "--json"}, {"keys", "rotate", "key_1"}} {
		p := &Program{Stdout: failingWriter{}, Stderr: failingWriter{}}
		err := p.Run(t.Context(), args)
		if err == nil || !strings.Contains(err.Error(), "sluice keys rotate key_1 gives it another: no space left") || strings.Contains(err.Error(), "sk-secret") {
			t.Errorf("%q: %v", args, err)
		}
	}
	out, err := sluice("keys", "create", "--name", "n", "--note", "who to ask")
	if err != nil || asked != `{"name":"n","note":"who to ask"}` || !strings.Contains(out, "note     who to ask\n") {
		t.Errorf("a note: %v, sent %s\n%s", err, asked, out)
	}
}

// TestNoConfiguration: where no file is named and none is there, the ways to one are. A file that is named
// and is not there is a mistake.
func TestNoConfiguration(t *testing.T) {
	folder(t)
	const ways = "no config.yaml in this folder. sluice init writes one"
	for args, want := range map[string]string{
		"": ways, "serve": ways, "check": ways, "check --json": ways, "check other.yaml": "cannot read config: stat other.yaml", "check --config config.yaml": "cannot read config: stat config.yaml",
	} {
		out, err := sluice(strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) || ExitCode(err) != 1 || strings.Contains(args, "json") && !strings.Contains(out, ways) {
			t.Errorf("%s: %v %s", args, err, out)
		}
	}
}
