package app

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mimecast-proxy/config"
)

func TestInheritedSocketThatEveryUserCanOpenIsWarnedOf(t *testing.T) {
	dir, err := os.MkdirTemp("", "s") // a socket's path is limited to about 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	keyed, err := config.Parse([]string{"MIMECAST_CLIENT_ID=i", "MIMECAST_CLIENT_SECRET=s", "PROXY_API_KEY=a key that is long enough"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode fs.FileMode
		l    net.Listener
		cfg  config.Config
		says string
	}{
		{0o666, unix, config.Config{}, "PROXY_LISTEN is an inherited socket of mode 0666, open to every local user"}, {0o602, unix, config.Config{}, "mode 0602"}, {0o777, unix, config.Config{}, "mode 0777"},
		{0o660, unix, config.Config{}, ""}, {0o600, unix, config.Config{}, ""}, {0o664, unix, config.Config{}, ""},
		{0o666, unix, keyed, ""}, {0o666, unix, config.Config{TrustNetwork: true}, ""}, {0o666, tcp, config.Config{}, ""},
	} {
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if got := socketWarning("PROXY_LISTEN", c.l, c.cfg); !strings.HasPrefix(got, c.says) && !strings.Contains(got, c.says) || (got == "") != (c.says == "") {
			t.Errorf("%v: %q, want %q", c.mode, got, c.says)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := socketWarning("PROXY_LISTEN", unix, config.Config{}); !strings.Contains(got, "without a file") {
		t.Errorf("%q", got)
	}
}
