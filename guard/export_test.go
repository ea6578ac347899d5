package guard

// Unauthenticated returns how many token requests are being read.
func (g *Guard) Unauthenticated() int { return int(g.unauthenticated.taken.Load()) }
