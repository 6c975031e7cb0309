package client

import "errors"

// chunkBudget is how many bytes a client may still send of a body in chunks. Their extensions, and what
// else frames them, could otherwise go on for ever without the body growing.
type chunkBudget struct {
	counted bool
	left    int64
}

const (
	// framingFree is how much may arrive before any data does: what the server's buffer and one read
	// hold is not yet seen as data.
	framingFree = 128 << 10
	// framingFactor is how much may arrive for each byte of data. A chunk of one byte takes six.
	framingFactor = 16
)

var errFraming = errors.New("the chunks of a body have far more framing than data")

// CountChunks counts from now on what the client sends of a body in chunks; head is how long a head may
// be, of which the server's buffer may hold as much.
func (c *Conn) CountChunks(head int64) {
	c.chunks = chunkBudget{counted: true, left: framingFree + head}
}

// StopCounting ends what CountChunks began.
func (c *Conn) StopCounting() { c.chunks = chunkBudget{} }

// Received tells of n bytes of the body's data, which pay for more framing.
func (c *Conn) Received(n int) { c.chunks.left += int64(n) * framingFactor }

// TooMuchFraming reports whether a read failed because there was more framing than CountChunks allows.
func (c *Conn) TooMuchFraming() bool { return c.chunks.over() }

func (b *chunkBudget) over() bool { return b.counted && b.left < 0 }

func (b *chunkBudget) spend(n int) error {
	if b.left -= int64(n); b.over() {
		return errFraming
	}
	return nil
}
