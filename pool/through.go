package pool

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/valyala/fasthttp"
	"golang.org/x/net/proxy"
)

// way opens a connection to address, an upstream's: a watched one, or TLS over one.
type way func(ctx context.Context, address string) (net.Conn, error)

// straight is the way without a proxy. n are the upstream's own.
func straight(n *names) way {
	return func(ctx context.Context, _ string) (net.Conn, error) {
		w, err := n.connect(ctx)
		if err != nil {
			return nil, err
		}
		return w, nil
	}
}

// through is the way by a forward proxy: CONNECT (RFC 9110, section 9.3.6) for scheme http and
// https, for plain upstreams too, or SOCKS5 (RFC 1928). n are the proxy's, and secure is the TLS to
// an https proxy.
func through(by *url.URL, secure *tls.Config, n *names) way {
	return func(ctx context.Context, address string) (net.Conn, error) {
		raw, err := n.connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("cannot reach the proxy: %w", err)
		}
		// What is awaited ends when the time for connecting does.
		stop := context.AfterFunc(ctx, func() { raw.Close() })
		var conn net.Conn = raw
		switch by.Scheme {
		case "socks5", "socks5h":
			err = socks(ctx, raw.Conn, by, address) // the library moves its deadline from another goroutine
		case "https":
			conn = tlsOver(conn, secure)
			fallthrough
		default:
			err = connect(conn, by, address)
		}
		if !stop() {
			err = ctx.Err()
		}
		if err != nil {
			raw.Close()
			return nil, err
		}
		return conn, nil
	}
}

// maxProxyAnswer bounds the head of a proxy's answer.
const maxProxyAnswer = 64 << 10

// connect asks the proxy at the other end of conn for a way to address.
func connect(conn net.Conn, by *url.URL, address string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{"User-Agent": nil}}
	if by.User != nil {
		req.Header.Set("Proxy-Authorization", basic(by.User))
	}
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("cannot ask the proxy: %w", err)
	}
	answer, n, err := awaitHead(bufio.NewReader(conn), conn, maxProxyAnswer)
	var resp fasthttp.ResponseHeader
	if err == nil {
		err = parseHead(&resp, answer, n)
	}
	switch {
	case err == longHead:
		return fmt.Errorf("cannot use the proxy: its answer's head is longer than %d bytes", maxProxyAnswer)
	case err != nil:
		return fmt.Errorf("cannot use the proxy: %w", err)
	case resp.StatusCode()/100 != 2:
		return fmt.Errorf("the proxy answered %d", resp.StatusCode())
	case answer.Buffered() > 0:
		return errors.New("the proxy, or who is behind it, speaks unasked")
	}
	return nil
}

// socks asks the SOCKS5 proxy at the other end of conn for a way to address.
func socks(ctx context.Context, conn net.Conn, by *url.URL, address string) error {
	var auth *proxy.Auth
	if by.User != nil {
		password, _ := by.User.Password()
		auth = &proxy.Auth{User: by.User.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", hostPort(by), auth, nil)
	if err != nil {
		return fmt.Errorf("cannot use the proxy: %w", err)
	}
	// Its other methods dial themselves, or wrap the connection.
	shake, ok := d.(interface {
		DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
	})
	if !ok {
		return errors.New("BUG: the SOCKS library cannot use a connection that is there")
	}
	_, err = shake.DialWithConn(ctx, conn, "tcp", address)
	return err
}
