package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// Hash is the SHA-256 of a secret.
type Hash [sha256.Size]byte

const (
	secretPrefix = "sk-sluice-"
	secretBytes  = 32
	// secretLength is of secretPrefix and 256 bits in unpadded URL-safe base64.
	secretLength = len(secretPrefix) + 43
	shownLength  = len(secretPrefix) + 4
)

// newSecret makes a secret of 256 random bits.
func newSecret() string {
	var b [secretBytes]byte
	rand.Read(b[:]) // never fails: the runtime aborts instead
	return secretPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// hashOf is the hash of what a client sent as its key; false for what cannot be one,
// by its length and its public prefix alone.
func hashOf(secret []byte) (Hash, bool) {
	if len(secret) != secretLength || string(secret[:len(secretPrefix)]) != secretPrefix {
		return Hash{}, false
	}
	return sha256.Sum256(secret), true
}

const idPrefix = "key_"

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newID makes an id; ids sort by the time they were made.
func newID(now time.Time) string {
	var b [15]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:])
	return idPrefix + idEncoding.EncodeToString(b[:])
}
