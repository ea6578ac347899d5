package config

// Loaded returns the last version that was parsed without errors.
func (c Clients) Loaded() *Directory { return c.state().loaded }
