package keys

// Find returns the keys that match lets through, in no order.
func (s *Store) Find(match func(*Key) bool) (found []*Key) {
	s.byID.Range(func(_ string, k *Key) bool {
		if match(k) {
			found = append(found, k)
		}
		return true
	})
	return found
}
