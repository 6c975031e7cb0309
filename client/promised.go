package client

// What a body's announced length takes of limits.memory is promised to it before it has arrived. The
// sweep takes back what does not arrive.

// slowBody is after how many sweeps a body that has not arrived gets memory only as it does:
// to announce much and to send nothing must not keep others out.
const slowBody = 4

// Promise notes that n bytes of limits.memory, which the caller has taken, are for what arrives.
func (c *Conn) Promise(n int64) { c.promised.Store(n) }

// TakePromised takes up to n of what was promised.
func (c *Conn) TakePromised(n int64) int64 {
	for {
		promised := c.promised.Load()
		if taken := min(n, promised); c.promised.CompareAndSwap(promised, promised-taken) {
			return taken
		}
	}
}

// Unpromise gives back what is left of it.
func (c *Conn) Unpromise() { c.all.memory.Give(c.promised.Swap(0)) }
