package proxy

// maxLogged is how many characters of a path, and of a method, are logged.
const maxLogged = 200

// readLine keeps the method and the path for the access log, which is written when the head may be gone. The
// query is not kept: some clients have a key in it.
func (r *request) readLine() {
	r.method = append(r.method[:0], characters(r.ctx.Method(), maxLogged)...)
	r.path = append(r.path[:0], characters(r.ctx.Request.URI().PathOriginal(), maxLogged)...)
}

// readBrokenLine is readLine for a head that could not be read. The server takes what it has not read for
// GET /, which is then not logged.
func (r *request) readBrokenLine() {
	if string(r.ctx.Request.Header.RequestURI()) != "/" {
		r.readLine()
	}
}
