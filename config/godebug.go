package config

import "strings"

// checkDebugging refuses what makes net/http write tokens, headers and bodies to the
// log. It takes the setting when the process starts, so that nothing here could
// turn it off again: a warning would come beside the secrets.
func (p *parser) checkDebugging() {
	const setting = "http2debug="
	for rest := p.environ["GODEBUG"]; ; {
		_, after, ok := strings.Cut(rest, setting)
		if !ok {
			return
		}
		if value, _, _ := strings.Cut(after, ","); value != "0" && value != "" {
			p.addError("GODEBUG", "http2debug makes Go log tokens, headers and bodies", "GODEBUG without http2debug")
			return
		}
		rest = after
	}
}
