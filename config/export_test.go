package config

// Loaded returns what was parsed last without errors.
func (c Clients) Loaded() *Directory { return c.state().loaded }
