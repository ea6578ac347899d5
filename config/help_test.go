package config_test

import (
	"strings"
	"testing"

	"mimecast-proxy/config"
)

func TestVariablesAreInTheContractsOrder(t *testing.T) {
	var got []string
	for _, v := range config.Variables() {
		got = append(got, v.Name)
		if v.Help == "" || v.Default == "" || v.Accepts == "" && !v.File {
			t.Errorf("half a manual: %+v", v)
		}
	}
	equal(t, "names", strings.Join(got, " "), "MIMECAST_PROFILE MIMECAST_CLIENT_ID MIMECAST_CLIENT_SECRET MIMECAST_REGION MIMECAST_BASE_URL MIMECAST_TOKEN_URL MIMECAST_CA_FILE "+
		"HTTPS_PROXY NO_PROXY PROXY_LISTEN PROXY_TLS_LISTEN PROXY_TLS_CERT_FILE PROXY_TLS_KEY_FILE PROXY_INTERCEPT_LISTEN PROXY_INTERCEPT_CA_DIR PROXY_API1 PROXY_SOCKET_MODE PROXY_ADMIN_LISTEN PROXY_API_KEY PROXY_CLIENTS_FILE PROXY_TRUST_NETWORK PROXY_ALLOWED_HOSTS PROXY_ALLOWED_ORIGINS "+
		"PROXY_ALLOW PROXY_ALLOW_MODE PROXY_TOKEN_STUB PROXY_REPLAY_LIMIT PROXY_REPLAY_MEMORY PROXY_RATE_LIMIT_WAIT PROXY_RATE_LIMIT_PACE PROXY_BATCH_RELAY PROXY_MAX_REQUESTS "+
		"PROXY_MAX_HEADER_BYTES PROXY_MAX_HEADER_FIELDS GOMEMLIMIT PROXY_MAX_CONNECTIONS "+
		"PROXY_DIAL_TIMEOUT PROXY_RESPONSE_TIMEOUT PROXY_IDLE_TIMEOUT PROXY_SHUTDOWN_DELAY PROXY_SHUTDOWN_TIMEOUT PROXY_QUIT_ENDPOINT PROXY_LOG_LEVEL PROXY_LOG_FORMAT")
}

func TestDocumentedDefaultsAreAcceptedAsValues(t *testing.T) {
	for _, v := range config.Variables() {
		if !strings.Contains(config.Markdown(), "| `"+v.Default+"` |") {
			continue // the default is a description
		}
		if got := faults(t, environ(v.Name+"="+v.Default)); got != nil {
			t.Errorf("%q", got)
		}
	}
}

func TestHelpNamesEveryVariableInColumns(t *testing.T) {
	var b strings.Builder
	config.WriteHelp(&b)
	help := "\n" + b.String()
	for _, v := range config.Variables() {
		if !strings.Contains(help, "\n  "+v.Name) || v.File && !strings.Contains(help, "\n  "+v.Name+"_FILE") {
			t.Errorf("%s is missing", v.Name)
		}
	}
	for line := range strings.Lines(help) {
		if len(line) > 81 || strings.TrimRight(line, " \n")+"\n" != line {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
}

func TestMarkdownIsATableOfThreeColumns(t *testing.T) {
	table := config.Markdown()
	equal(t, "rows", strings.Count(table, "\n"), len(config.Variables())+2)
	for line := range strings.Lines(table) {
		if strings.Count(line, "|")-strings.Count(line, `\|`) != 4 {
			t.Errorf("%q", line)
		}
	}
	for _, row := range []string{
		"| `MIMECAST_CLIENT_SECRET`, `_FILE` | required, unless a connection is stored or every client in the clients file names an account | Client secret of the API 2.0 application |\n",
		"| `PROXY_LOG_FORMAT` | `auto` | auto: console on a terminal, else JSON. gcp: JSON with the severity and message of Google Cloud Logging. Times are UTC in every format. Accepted: auto, console, json or gcp |\n",
	} {
		if !strings.Contains(table, row) {
			t.Errorf("no row %q in\n%s", row, table)
		}
	}
}
