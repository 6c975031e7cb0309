package e2e

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	composecli "github.com/compose-spec/compose-go/v2/cli"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	"sluice/mock"
)

// tool runs a program that not every machine has; .ci/run installs those that are meant.
func tool(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(name + " is not installed")
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "no help text") {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
}

// TestMetricsAreWellFormed: what a scrape of a process that has served gets.
func TestMetricsAreWellFormed(t *testing.T) {
	t.Parallel()
	n := begin(t, provider(t, &mock.Provider{Chunks: 3}), "")
	key := n.key(`{"name":"x"}`)
	for _, body := range []string{`{"model":"demo"}`, `{"model":"demo","stream":true}`, `{"model":"nope"}`} {
		n.call("POST", n.data+"/v1/chat/completions", key, body)
	}
	status, text := n.call("GET", n.admin+"/metrics", adminToken, "")
	if status != 200 || !strings.Contains(text, `sluice_keys{state="active"} 1`+"\n") {
		t.Fatalf("%d %s", status, text)
	}
	tool(t, text, "promtool", "check", "metrics")
}

func TestAlertRules(t *testing.T) {
	t.Parallel()
	tool(t, "", "promtool", "check", "rules", "deploy/prometheus/alerts.yaml")
	tool(t, "", "promtool", "test", "rules", "deploy/prometheus/alerts_test.yaml")
	tool(t, "", "promtool", "check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml")
	wantKnownSeries(t, read(t, "deploy/prometheus/alerts.yaml"))
}

// TestDashboard: every query is one that Prometheus takes, of series that there are.
func TestDashboard(t *testing.T) {
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text := read(t, "deploy/grafana/dashboard.json")
	if err := json.Unmarshal([]byte(text), &board); err != nil {
		t.Fatal(err)
	}
	rules := &strings.Builder{}
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	number := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			number++
			// A rule knows none of the dashboard's variables.
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			quoted, _ := json.Marshal(expr)
			rules.WriteString("  - {record: 'q:" + strings.Repeat("i", number) + "', expr: " + string(quoted) + "}\n")
		}
	}
	if number < 20 {
		t.Fatalf("%d queries", number)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, rules.String())
	tool(t, "", "promtool", "check", "rules", path)
	wantKnownSeries(t, text)
	for _, name := range series(read(t, "docs/metrics.md"), "(?m)^\\| `(sluice_[a-z_]+)`") {
		if !strings.Contains(text, name) && !slices.Contains([]string{"sluice_upstream_max_in_flight", "sluice_config_reloads_total", "sluice_certificate_expiry_timestamp_seconds", "sluice_target_drained", "sluice_build_info",
			"sluice_admin_login_failures_total", "sluice_shared_store_up", "sluice_shared_store_silent_seconds", "sluice_shared_store_nodes", "sluice_without_store", "sluice_config_last_reload_success_timestamp_seconds"}, name) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// wantKnownSeries fails for names in text that docs/metrics.md, which is held against the source,
// does not have.
func wantKnownSeries(t *testing.T, text string) {
	t.Helper()
	known := series(read(t, "docs/metrics.md"), "(?m)^\\| `(sluice_[a-z_]+)`")
	for _, name := range series(text, `\b(sluice_[a-z_]+)`) {
		name = strings.TrimSuffix(name, "_bucket")
		if !slices.Contains(known, name) {
			t.Errorf("there is no series %s", name)
		}
	}
}

// TestManifests: each object is one that Kubernetes knows, with no field that it does not, and the
// objects fit each other. There is no cluster here to try them on.
func TestManifests(t *testing.T) {
	var config corev1.ConfigMap
	var claim corev1.PersistentVolumeClaim
	var deployment appsv1.Deployment
	var service corev1.Service
	var budget policyv1.PodDisruptionBudget
	var network networkingv1.NetworkPolicy
	kinds := map[string]any{"ConfigMap": &config, "PersistentVolumeClaim": &claim, "Deployment": &deployment, "Service": &service,
		"PodDisruptionBudget": &budget, "NetworkPolicy": &network}
	for _, text := range strings.Split(read(t, "deploy/kubernetes/sluice.yaml"), "\n---\n") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
			t.Fatal(err)
		}
		object := kinds[kind.Kind]
		if object == nil {
			t.Fatalf("a %q more", kind.Kind)
		}
		delete(kinds, kind.Kind)
		if err := yaml.UnmarshalStrict([]byte(text), object); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
	}
	if len(kinds) > 0 {
		t.Fatalf("there is no %v", kinds)
	}

	pod := deployment.Spec.Template.Spec
	c := pod.Containers[0]
	labels := deployment.Spec.Template.Labels
	for what, selector := range map[string]map[string]string{"the deployment": deployment.Spec.Selector.MatchLabels, "the service": service.Spec.Selector,
		"the budget": budget.Spec.Selector.MatchLabels, "the policy": network.Spec.PodSelector.MatchLabels} {
		if !maps.Equal(selector, labels) {
			t.Errorf("%s selects %v, the pod has %v", what, selector, labels)
		}
	}
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	if ports["http"] != 8080 || ports["admin"] != 9090 || service.Spec.Ports[0].TargetPort.StrVal != "http" ||
		c.ReadinessProbe.HTTPGet.Port.StrVal != "http" || c.LivenessProbe.HTTPGet.Path != "/healthz" || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Errorf("ports and probes: %v %+v", ports, c.ReadinessProbe.HTTPGet)
	}
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, m := range c.VolumeMounts {
		if !volumes[m.Name] || m.SubPath != "" {
			t.Errorf("the volume %s is not there, or would not be renewed", m.Name)
		}
	}
	if *pod.TerminationGracePeriodSeconds < c.Lifecycle.PreStop.Sleep.Seconds+30 {
		t.Error("the pod is killed before it has drained")
	}
	if s := c.SecurityContext; !*pod.SecurityContext.RunAsNonRoot || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || s.Capabilities.Drop[0] != "ALL" {
		t.Error("the container may do more than it needs")
	}
	checked(t, config.Data["config.yaml"], "/run/secrets/sluice")
}

// checked fails if sluice refuses a configuration whose secrets are in the folder called secrets.
func checked(t *testing.T, text, secrets string, env ...string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range series(text, `\$\{file:`+secrets+`/([a-z_]+)\}`) {
		write(t, filepath.Join(dir, name), "0123456789abcdef")
	}
	path := filepath.Join(dir, "config.yaml")
	write(t, path, strings.ReplaceAll(text, secrets, dir))
	cmd := sluice(t, "check", "-config", path)
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
}

// TestCompose: the file is one that Compose takes, what it names is there, and sluice takes the
// configuration. There is no container engine here to try it on.
func TestCompose(t *testing.T) {
	options, err := composecli.NewProjectOptions([]string{"deploy/compose.yaml"}, composecli.WithName("sluice"),
		composecli.WithEnv([]string{"SLUICE_ADMIN_TOKEN=0123456789abcdef"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range project.Services {
		for _, v := range s.Volumes {
			if _, err := os.Stat(v.Source); v.Type == "bind" && err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s.Build != nil {
			if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if len(project.Services) != 4 || !project.Services["sluice"].ReadOnly {
		t.Errorf("services: %v", project.ServiceNames())
	}
	for name, s := range project.Services {
		if s.ReadOnly && len(s.Secrets) > 0 {
			t.Errorf("%s: Compose gives no secret from the environment to a read-only service", name)
		}
	}
	checked(t, read(t, "deploy/compose/config.yaml"), "/run/secrets", "SLUICE_ADMIN_TOKEN=0123456789abcdef")
	if scraped := read(t, "deploy/prometheus/prometheus.yml"); !strings.Contains(scraped, "credentials_file: /run/secrets/sluice_admin_token") || !strings.Contains(scraped, `["sluice:9090"]`) {
		t.Error("Prometheus asks elsewhere, or with another token")
	}
}

// TestDockerfile: what it copies is there or made before, its build is one that works, and what it
// runs is what it has built, as nobody in particular.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	var from, user, build string
	images := map[string]string{}                                   // what the image has, and from where
	for line := range strings.Lines(read(t, "deploy/Dockerfile")) { // an instruction a line
		instruction, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		words := strings.Fields(value)
		switch instruction {
		case "", "#", "ARG", "CMD", "EXPOSE", "VOLUME", "WORKDIR":
		case "FROM":
			from, images = value, map[string]string{}
		case "USER":
			user = value
		case "COPY":
			flags := slices.IndexFunc(words, func(w string) bool { return !strings.HasPrefix(w, "--") })
			for _, source := range words[flags : len(words)-1] {
				images[words[len(words)-1]] = source
				if flags > 0 {
					continue // from the other stage
				}
				if _, err := os.Stat(source); err != nil {
					t.Error(err)
				}
			}
		case "RUN":
			if strings.Contains(value, "go build") {
				build = value
			}
		case "ENTRYPOINT":
			if images[strings.Trim(value, `["]`)] != "/out/sluice" {
				t.Errorf("it runs %s, of %v", value, images)
			}
		default:
			t.Errorf("no instruction: %s", line)
		}
	}
	if from != "scratch" || user != "65532:65532" {
		t.Errorf("the image is from %s, for %s", from, user)
	}
	out := filepath.Join(t.TempDir(), "sluice")
	if text, err := exec.Command("/bin/sh", "-c", strings.Replace(build, "/out/sluice", out, 1)).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", build, err, text)
	}
	if text, err := exec.Command("ldd", out).CombinedOutput(); err == nil {
		t.Errorf("it needs libraries: %s", text)
	}
	if text, err := exec.Command(out, "-h").CombinedOutput(); err != nil || !strings.HasPrefix(string(text), "usage:") {
		t.Errorf("%v %s", err, text)
	}
}

// TestUnits: systemd takes them, and finds little that the service may do beyond its work.
func TestUnits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	service := read(t, "deploy/systemd/sluice.service")
	write(t, filepath.Join(dir, "sluice.service"), strings.ReplaceAll(service, "/usr/local/bin/sluice", programPath(t)))
	write(t, filepath.Join(dir, "sluice.socket"), read(t, "deploy/systemd/sluice.socket"))
	tool(t, "", "systemd-analyze", "verify", filepath.Join(dir, "sluice.service"), filepath.Join(dir, "sluice.socket"))
	tool(t, "", "systemd-analyze", "security", "--offline=true", "--threshold=20", filepath.Join(dir, "sluice.service"))
}
