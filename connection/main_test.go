package connection

import (
	"testing"

	"go.uber.org/goleak"

	"mimecast-proxy/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// marked is part of every secret in these tests, so that they can find a leak.
const marked = "s3cr3t-marked"

func credentials(id, key string) Credentials {
	return Credentials{secret.New(id), secret.New(key)}
}

var sample = credentials("abcdefgh-client-id", marked+"-0123456789")

// awkward are values that a careless writer of YAML or of variables would corrupt.
var awkward = []string{
	"plain-0123", `back\slash`, `dou"ble`, "#comment", "a#b", "$HOME", "${HOME}", "%d", "a:b", "{a}", "[a]", "*a", "&a", "!a", "|", ">", "@a", "`a`",
	"yes", "null", "~", "0x1f", "1e3", "<&>", "ünïcödé€", "🔑", "=a=", "a;b", "a,b",
}
