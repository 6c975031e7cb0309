package proxy

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"sluice/jsontext"
	"sluice/limiter"
)

// outputCap is the most tokens that the client lets the model generate: its cap, or
// keys.default_reservation, for each of the answers that it asks for.
func (r *request) outputCap() int64 {
	m := &r.fields.members
	if m.again>>nameMaxTokens != 0 {
		return limiter.MaxLimit // one of them holds, and nobody knows which
	}
	most := int64(-1)
	for _, name := range [...]name{nameMaxTokens, nameMaxCompletionTokens, nameMaxOutputTokens} {
		if own := m.find(name); own != nil {
			most = max(most, countOf(r.value(own)))
		}
	}
	if most < 0 {
		most = int64(r.snapshot.config.Keys.DefaultReservation)
	}
	answers := int64(1)
	for _, name := range [...]name{nameN, nameBestOf} {
		if own := m.find(name); own != nil {
			answers = max(answers, countOf(r.value(own)))
		}
	}
	if most > limiter.MaxLimit/answers {
		return limiter.MaxLimit
	}
	return most * answers
}

// maxDigits is how long a string with a number in it may be. A longer one is taken for the largest
// number.
const maxDigits = 64

// countOf is the number that value is or, as a string, holds, since some upstreams take that too:
// at most limiter.MaxLimit, -1 for what is no count.
func countOf(value []byte) int64 {
	digits := borrowString(value)
	if value[0] == '"' {
		if len(value) > maxDigits {
			return limiter.MaxLimit
		}
		text, _ := jsontext.Text(value)
		digits = strings.ReplaceAll(strings.TrimSpace(borrowString(text)), "_", "")
	}
	n, err := strconv.ParseFloat(digits, 64)
	if !(n >= 0) || err != nil && !errors.Is(err, strconv.ErrRange) {
		return -1
	}
	return int64(min(math.Ceil(n), limiter.MaxLimit))
}
