package guard

// Unproven returns how many token requests are being read.
func (g *Guard) Unproven() int { return int(g.unproven.taken.Load()) }
