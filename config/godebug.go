package config

import "strings"

// checkDebugging rejects GODEBUG=http2debug, which makes net/http log tokens, headers
// and bodies. Go reads it at process start, so the proxy cannot turn it off. A warning
// would not keep the secrets out of the log.
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
