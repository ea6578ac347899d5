package app

import (
	"fmt"
	"io/fs"
	"net"
	"os"

	"mimecast-proxy/config"
)

// socketWarning returns a warning if any local user can use the account through an inherited
// Unix socket, such as systemd's; otherwise an empty string. variable is the listener's
// variable.
func socketWarning(variable string, l net.Listener, cfg config.Config) string {
	addr := l.Addr()
	if addr.Network() != "unix" || cfg.KeyRequired() || cfg.TrustNetwork {
		return ""
	}
	info, err := os.Stat(addr.String())
	if err != nil || info.Mode().Type() != fs.ModeSocket { // in another mount namespace, or abstract
		return fmt.Sprintf("%s is an inherited socket without a file here: any client that connects can use the account; set PROXY_API_KEY_FILE", variable)
	}
	const others = 0o002
	if mode := info.Mode().Perm(); mode&others != 0 {
		return fmt.Sprintf("%s is an inherited socket of mode %04o, open to every local user; set SocketMode=0660 and SocketGroup=, or PROXY_API_KEY_FILE", variable, mode)
	}
	return ""
}
