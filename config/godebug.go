package config

import "strings"

// checkDebugging rejects the setting that makes net/http log tokens, headers and
// bodies. Go reads it when the process starts, so the proxy cannot turn it off, and a
// warning would stand beside the secrets.
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
