package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultAdmin  = "http://127.0.0.1:9090"
	defaultConfig = "config.yaml"
	// patience is how long an answer may take.
	patience = 30 * time.Second
	// maxAnswer bounds one, far above a page of keys.
	maxAnswer = 64 << 20
)

// nothingOnDataPort begins what the data port answers where it has no such path; the admin port's answer
// ends before the semicolon.
const nothingOnDataPort = "there is nothing at this path; "

// client asks the admin port.
type client struct {
	base  string
	token string
	http  http.Client
}

// newClient makes a client of the admin port at base.
func newClient(base, token string) (*client, error) {
	base = strings.TrimSuffix(base, "/")
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("SLUICE_ADMIN (--admin) must be the admin port's URL, such as " + defaultAdmin)
	}
	if token == "" {
		return nil, errors.New("SLUICE_ADMIN_TOKEN is not set; it is the admin.token of the running sluice")
	}
	c := &client{base: base, token: token}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // the token stays here
	return c, nil
}

// call sends body, unless it is nil, and returns the answer. Any status but a 2xx is an error with
// what the gateway says of it.
func (c *client) call(ctx context.Context, method, path string, body any) (json.RawMessage, error) {
	answer, status, err := c.exchange(ctx, method, path, body)
	if err != nil || status/100 == 2 {
		return answer, err
	}
	return nil, c.refusal(answer, status)
}

// refusedError is what the gateway says of a request that it did not take.
type refusedError struct {
	status         int
	param, message string
}

func (e *refusedError) Error() string { return e.message }

// refusal reads an answer whose status is no success. What a stranger gets, or whoever asks another port,
// it says in terms of the command line.
func (c *client) refusal(answer []byte, status int) error {
	var said struct {
		Error struct{ Message, Param string }
	}
	if json.Unmarshal(answer, &said) != nil || said.Error.Message == "" {
		return fmt.Errorf("%s answered %d, and not as a sluice does", c.base, status)
	}
	message := said.Error.Message
	switch {
	case status == http.StatusUnauthorized:
		message = c.base + " refuses the admin token; give the admin.token of the sluice that runs there, " +
			"in SLUICE_ADMIN_TOKEN, or in a file with --token-file"
	case status == http.StatusNotFound && strings.HasPrefix(message, nothingOnDataPort):
		message = c.base + " is the data port; name the admin port with SLUICE_ADMIN or --admin"
	}
	return &refusedError{status, said.Error.Param, message}
}

func (c *client) exchange(ctx context.Context, method, path string, body any) (json.RawMessage, int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, 0, err
		}
	}
	resp, err := c.send(ctx, method, path, text)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, 0, fmt.Errorf("the admin port's answer broke off: %w", err)
	}
	return bytes.TrimSpace(answer), resp.StatusCode, nil
}

// send sends a request. The caller closes the answer's body.
func (c *client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		var failed *url.Error // which repeats the whole URL before it says what is wrong
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return nil, fmt.Errorf("cannot reach the admin port: %w", err)
	}
	return resp, nil
}

// into is call for an answer of a known shape.
func into[T any](ctx context.Context, c *client, method, path string, body any) (v T, err error) {
	answer, err := c.call(ctx, method, path, body)
	if err == nil && json.Unmarshal(answer, &v) != nil {
		err = errNoSluice
	}
	return v, err
}

var errNoSluice = errors.New("the admin port does not answer as a sluice does")
