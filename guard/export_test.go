package guard

// Unauthenticated returns the number of token requests whose bodies are being read.
func (g *Guard) Unauthenticated() int { return int(g.unauthenticated.taken.Load()) }
