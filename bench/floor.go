package main

import (
	"context"
	"flag"

	"github.com/valyala/fasthttp"
)

// floor is the smallest proxy that fasthttp makes: it forwards what comes and streams what goes
// back, with the buffers that sluice has. What sluice costs beyond it is sluice's own.
func floor(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench floor", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address to serve")
	to := flags.String("upstream", "", "host:port to forward to")
	buffer := flags.Int("buffer", 16<<10, "bytes of each connection's read and write buffer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client := &fasthttp.HostClient{
		Addr: *to, MaxConns: 1 << 20, ReadBufferSize: *buffer, WriteBufferSize: *buffer, StreamResponseBody: true,
		NoDefaultUserAgentHeader: true, ConnPoolStrategy: fasthttp.LIFO,
	}
	server := &fasthttp.Server{
		ReadBufferSize: *buffer, WriteBufferSize: *buffer, MaxRequestBodySize: 16 << 20, NoDefaultServerHeader: true,
		Handler: func(c *fasthttp.RequestCtx) {
			c.Request.Header.Del("Connection")
			if err := client.Do(&c.Request, &c.Response); err != nil {
				c.Error("bad gateway", fasthttp.StatusBadGateway)
				return
			}
			c.Response.Header.Del("Connection")
			if c.Response.Header.ContentLength() < 0 {
				c.Response.ImmediateHeaderFlush = true
			}
		},
	}
	go func() {
		<-ctx.Done()
		_ = server.Shutdown()
	}()
	return server.ListenAndServe(*listen)
}
