package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/keys"
)

const (
	// A request of the playground is bounded in what it sends, what it gets, and how long it takes.
	maxPlayed    = 256 << 10
	maxPlayedOut = 4 << 20
	playedTotal  = 5 * time.Minute
)

// playedPaths are the paths that the playground may ask for.
var playedPaths = map[string]bool{"/v1/chat/completions": true, "/v1/messages": true, "/v1/responses": true, "/v1/embeddings": true, "/v1/completions": true}

// played is a request of the playground.
type played struct {
	Key  string          `json:"key"`
	Path string          `json:"path"`
	Body json.RawMessage `json:"body"`
}

// play sends a request to the data port with the key that it is given, and passes on what comes. A browser
// could not: the data port is another origin. Nothing of it is kept.
func (a *Admin) play(w http.ResponseWriter, r *http.Request) {
	p, err := readPlayed(w, r)
	if err != nil {
		a.storeFailed(w, err)
		return
	}
	if !a.played.enter() {
		w.Header().Set("Retry-After", "1")
		writeError(w, 429, "rate_limit_exceeded", "", strconv.FormatInt(a.played.most, 10)+" requests of the playground are under way already; wait for one of them")
		return
	}
	defer a.played.leave()
	ctx, cancel := context.WithTimeout(r.Context(), playedTotal)
	defer cancel()
	go func() { // ends with the request
		select {
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	client, base := a.dataPort()
	defer client.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, base+p.Path, bytes.NewReader(p.Body))
	req.Header.Set("Authorization", "Bearer "+p.Key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sluice-playground")
	resp, err := client.Do(req)
	if err != nil {
		writeError(w, 502, "upstream_error", "", "the data port does not answer the admin port: "+errors.Unwrap(err).Error())
		return
	}
	defer resp.Body.Close()
	passOn(w, resp)
}

func readPlayed(w http.ResponseWriter, r *http.Request) (*played, error) {
	body, err := readBody(w, r, maxPlayed)
	if err != nil {
		return nil, err
	}
	p := &played{Path: "/v1/chat/completions"}
	has, err := decode("", body, map[string]field{
		"key":  {into: &p.Key, want: "a gateway key"},
		"path": {into: &p.Path, want: "a path such as \"/v1/chat/completions\""},
		"body": {into: &p.Body, want: "an object"},
	})
	switch {
	case err != nil:
		return nil, err
	case !has["key"] || p.Key == "" || strings.ContainsFunc(p.Key, func(c rune) bool { return c < 0x21 || c > 0x7e }):
		return nil, fieldError("key", "must be a gateway key")
	case !playedPaths[p.Path]:
		return nil, fieldError("path", "must be one of /v1/chat/completions, /v1/messages, /v1/responses, /v1/completions, /v1/embeddings")
	case !has["body"]:
		return nil, fieldError("body", "must be the request's body, an object")
	}
	return p, nil
}

func fieldError(field, message string) error { return &keys.FieldError{Field: field, Message: message} }

// dataPort is a client of the data port, on this machine.
func (a *Admin) dataPort() (*http.Client, string) {
	address := a.data.String()
	if tcp, ok := a.data.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		address = net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	scheme, transport := "http", &http.Transport{DisableCompression: true}
	if a.live.Status().Config.TLS != nil {
		scheme = "https"
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // it is this process, whatever its certificate is for
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, scheme + "://" + address
}

// passOn copies an answer as it comes, as far as it may go.
func passOn(w http.ResponseWriter, resp *http.Response) {
	for name, values := range resp.Header {
		if strings.HasPrefix(name, "X-") || name == "Content-Type" || name == "Retry-After" {
			w.Header()[name] = values
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(resp.StatusCode)
	control := http.NewResponseController(w)
	buffer := make([]byte, 16<<10)
	for left := maxPlayedOut; left > 0; {
		n, err := resp.Body.Read(buffer[:min(len(buffer), left)])
		left -= n
		_ = control.SetWriteDeadline(time.Now().Add(followWrite))
		if _, werr := w.Write(buffer[:n]); werr != nil || control.Flush() != nil {
			return
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			break
		}
	}
	panic(http.ErrAbortHandler) // what is cut must not look whole
}
