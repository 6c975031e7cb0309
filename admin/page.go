package admin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
)

// The page is files as they are: nothing builds them, and they ask no other host for anything.
//
//go:embed page
var pageFiles embed.FS

// policy lets the page run its own scripts and talk to this port, and nothing else. uPlot sets styles
// through the DOM, which style-src does not concern.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// page are the handlers of the page's files by path. They need no token: what they show, the page
// asks for with the token that was typed into it.
func page() map[string]http.HandlerFunc {
	files, err := fs.ReadDir(pageFiles, "page")
	if err != nil {
		panic("BUG: the page is not embedded: " + err.Error())
	}
	handlers := map[string]http.HandlerFunc{}
	for _, f := range files {
		content, err := fs.ReadFile(pageFiles, "page/"+f.Name())
		if err != nil {
			panic("BUG: the page is not embedded: " + err.Error())
		}
		at := "/page/" + f.Name()
		if f.Name() == "index.html" {
			at = "/"
		}
		handlers[at] = pageFile(content, mime.TypeByExtension(path.Ext(f.Name())))
	}
	return handlers
}

func pageFile(content []byte, contentType string) http.HandlerFunc {
	if contentType == "" {
		contentType = "text/plain; charset=utf-8"
	}
	sum := sha256.Sum256(content)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", contentType)
		_, _ = w.Write(content) // a client that has left is no news
	}
}
