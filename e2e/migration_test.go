package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/upstreamtest"
	"sluice/mock"
)

// TestMigration: from the embedded store to a shared one. The keys go on working, and no secret is in between.
func TestMigration(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	base := provider(t, &mock.Provider{Chunks: 1})
	from := begin(t, base, "")
	var secrets []string
	for range 3 {
		secrets = append(secrets, from.key(`{"name":"x","limits":{"requests":5,"concurrent":2}}`))
	}
	keys := func(n *node, args ...string) (string, error) {
		return shell(t, []string{"SLUICE_ADMIN=" + n.admin, "SLUICE_ADMIN_TOKEN=" + adminToken}, append([]string{"keys"}, args...)...)
	}
	exported, err := keys(from, "export")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range secrets {
		if strings.Contains(exported, secret) {
			t.Error("a secret was exported")
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "keys.json")
	write(t, file, exported)

	to := beginIn(t, dir, strings.Replace(settings(dir, base, ""), filepath.Join(dir, "keys.db"), redis.URL(), 1))
	for _, test := range []struct{ text, want string }{
		{`{}`, "not what sluice keys export prints"},
		{strings.Replace(exported, `"name":"x"`, `"name":""`, 1), "keys[0]: name: is needed"},
		{strings.Replace(exported, `"hash":"`, `"hash":"z`, 1), "keys[0]: it has no valid hash"},
	} {
		bad := filepath.Join(dir, "bad.json")
		write(t, bad, test.text)
		if out, err := keys(to, "import", bad); err == nil || !strings.Contains(out, test.want) {
			t.Errorf("%v %s, want %q", err, out, test.want)
		}
		if out, _ := keys(to, "list", "-json"); out != `{"data":[],"object":"list"}`+"\n" {
			t.Errorf("something was imported: %s", out)
		}
	}
	for _, want := range []string{"3 keys were added, 0 were there already", "0 keys were added, 3 were there already"} {
		if out, err := keys(to, "import", file); err != nil || !strings.Contains(out, want) {
			t.Errorf("%v %s, want %q", err, out, want)
		}
	}
	for _, secret := range secrets {
		if status, body := to.call("POST", to.data+"/v1/chat/completions", secret, `{"model":"demo"}`); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
	if again, err := keys(to, "export"); err != nil || again != exported {
		t.Errorf("%v: what comes out is not what went in\n%s\n%s", err, exported, again)
	}
}
