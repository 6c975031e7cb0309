package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/cli"
	"sluice/config"
	"sluice/mock"
)

// demo is one run of sluice demo: the gateway and its provider in one process, so that nothing is left
// when it ends. Its ports are taken before anything else happens. A start that fails changes no file.
type demo struct {
	cli.Demo
	stdout, stderr io.Writer
	sockets        *sockets
	provider       net.Listener
	token          string
	tokenFile      string   // which has the token; "" where that is in the environment
	made           []string // files and folders that a failed start removes, the last first
}

func runDemo(ctx context.Context, flags cli.Demo, stdout, stderr io.Writer) (err error) {
	ctx, stop := endWithTerminal(ctx)
	defer stop()
	surviveStderr()
	d := &demo{Demo: flags, stdout: stdout, stderr: stderr, sockets: &sockets{}}
	started := false
	defer func() {
		if err != nil && !started {
			d.undo()
			err = fmt.Errorf("sluice demo did not start, and changed nothing: %w", err)
		}
	}()
	if err := d.listen(); err != nil {
		return err
	}
	defer d.provider.Close()
	defer d.sockets.close()
	cfg, digest, err := d.prepare(ctx)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	defer signal.Stop(signals)
	serving, end := context.WithCancel(ctx)
	defer end()
	provided := d.provide()
	var told error
	err = serve(serving, service{path: d.config(), cfg: cfg, digest: digest, stderr: stderr, signals: signals, sockets: d.sockets,
		fixed: errors.New("a demo is not replaced; end it and start it again"),
		ready: func(net.Addr, net.Addr) {
			if told = d.welcome(ctx); told != nil {
				end()
				return
			}
			started = true
		}})
	return errors.Join(err, told, provided())
}

// endWithTerminal ends ctx when the terminal goes. nohup has SIGHUP ignored, and that stays so.
func endWithTerminal(ctx context.Context) (context.Context, context.CancelFunc) {
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// listen takes the three ports, on the loopback interface.
func (d *demo) listen() (err error) {
	if d.sockets.data, err = listenLocally("--port", d.Port); err != nil {
		return err
	}
	if d.sockets.admin, err = listenLocally("--admin-port", d.AdminPort); err == nil {
		d.provider, err = listenLocally("", 0)
	}
	if err != nil {
		d.sockets.close()
	}
	return err
}

// listenLocally names a port that is taken, and offers one that is not.
func listenLocally(flag string, port int) (net.Listener, error) {
	ln, err := net.Listen("tcp", local(port))
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ln, err
	}
	for free := port + 1; free < min(port+100, 1<<16); free++ {
		if other, failed := net.Listen("tcp", local(free)); failed == nil {
			other.Close()
			return nil, fmt.Errorf("%w; port %d is free: %s %d", err, free, flag, free)
		}
	}
	return nil, fmt.Errorf("%w; name another port with %s", err, flag)
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (d *demo) in(name string) string { return filepath.Join(d.Folder, name) }

func (d *demo) config() string { return d.in("config.yaml") }

// prepare makes the folder and the configuration in it, where there are none, and reads it.
func (d *demo) prepare(ctx context.Context) (*config.Config, config.Digest, error) {
	if d.token = os.Getenv("SLUICE_ADMIN_TOKEN"); d.token == "" {
		d.tokenFile = d.in("admin.token")
		d.token = cmp.Or(kept(d.tokenFile), rand.Text())
	}
	for name, value := range map[string]string{"SLUICE_ADMIN_TOKEN": d.token, "DEMO_BASE_URL": "http://" + d.provider.Addr().String() + "/v1"} {
		if err := os.Setenv(name, value); err != nil { // for the configuration, which names them
			return nil, config.Digest{}, err
		}
	}
	for _, path := range []string{d.Folder, d.config(), d.in("keys.db")} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			d.made = append(d.made, path)
		}
	}
	if err := os.MkdirAll(d.Folder, 0o700); err != nil {
		return nil, config.Digest{}, err
	}
	if slices.Contains(d.made, d.config()) {
		if err := os.WriteFile(d.config(), []byte(cli.DemoConfig()), 0o600); err != nil {
			return nil, config.Digest{}, err
		}
	}
	return config.Load(ctx, d.config())
}

// undo removes what was not there before.
func (d *demo) undo() {
	for _, path := range slices.Backward(d.made) {
		_ = os.Remove(path) // a folder that another process has put something into stays
	}
}

// provide serves the provider until the function that it returns is called.
func (d *demo) provide() (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	p := &mock.Provider{Chunks: 20, ChunkDelay: 50 * time.Millisecond}
	go func() { served <- p.Serve(ctx, d.provider) }()
	return func() error {
		cancel()
		return <-served
	}
}

// welcome keeps the secrets and says what to do with a demo that serves.
func (d *demo) welcome(ctx context.Context) error {
	data, admin := "http://"+d.sockets.data.Addr().String(), "http://"+d.sockets.admin.Addr().String()
	another := os.Args[0] + " page --admin " + admin
	if d.tokenFile != "" {
		another += " --token-file " + d.tokenFile
		if err := keep(d.tokenFile, d.token); err != nil {
			return err
		}
	}
	key, link, err := cli.DemoAccess(ctx, data, admin, d.token, kept(d.in("dev.key")))
	if err != nil {
		return fmt.Errorf("cannot make a development key: %w", err)
	}
	if err := keep(d.in("dev.key"), key); err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.stdout, `
sluice serves %[1]s, its admin port is %[2]s. Ctrl-C ends it.
Its files are in %[3]s; it follows %[4]s while that changes.

Ask the model demo (leave "stream":true out for a plain answer):

curl -sN %[1]s/v1/chat/completions -H "Authorization: Bearer %[5]s" -H "Content-Type: application/json" -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"Hello"}]}'

The admin page, signed in (the link works once, within a minute; "%[6]s" prints another):

%[7]s

`, data, admin, d.Folder, d.config(), key, another, link)
	return err
}

// kept is the secret in a file, "" without one.
func kept(path string) string {
	text, _ := os.ReadFile(path) // one that cannot be read cannot be written either
	return strings.TrimSpace(string(text))
}

// keep writes a secret to a file, unless it is there already.
func keep(path, secret string) error {
	if kept(path) == secret {
		return nil
	}
	return os.WriteFile(path, []byte(secret+"\n"), 0o600)
}
