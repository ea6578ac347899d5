//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// If a command cannot be started, the error names the cause and what to type. The exit
// code is the one that shells use.
func TestRunSaysWhyACommandDoesNotStart(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"crlf.sh": "#!/bin/sh\r\necho\r\n", "crlf-env": "#!/usr/bin/env sh\r\necho\r\n", "crlf-option": "#!/bin/sh -e\r\necho\r\n", "with space.sh": "#!/bin/sh\r\n",
		"no-line": "echo\n", "no-line.py": "print(1)\n", "marked": "\ufeff#!/bin/sh\necho\n", "utf16": "\xff\xfe#\x00!\x00",
		"empty": "", "binary": "\x7fELF\x02\x01\x01\x00\x00", "lost": "#! /nowhere/interpreter -x\n", "fails": "#!/bin/sh\nexit 127\n", "latin": "echo \xe9\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "plain.sh"), []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sim := program.Simulate(t, simulator.Options{})
	for _, c := range []struct {
		code int
		argv []string
		says string
	}{
		{127, []string{"sh -c true"}, "type: run -- sh -c true\n"},
		{127, []string{"curl -s 'http://x/?a=b' | jq ."}, `type: run -- sh -c 'curl -s '\''http://x/?a=b'\'' | jq .'` + "\n"},
		{127, []string{"./no-line arg"}, "type: run -- ./no-line arg\n"},
		{127, []string{"echo " + strings.Repeat("x", 5000)}, "type: run -- CMD ARG…, or run -- sh -c '…'\n"},
		{127, []string{"A_B=secret", "sh"}, "type: run -- env A_B=… CMD\n"},
		{127, []string{""}, "its name is empty"},
		{127, []string{"no-such-program"}, `no program "no-such-program" in PATH`},
		{127, []string{"plain.sh"}, "type: run -- ./plain.sh\n"},
		{127, []string{"./nowhere"}, `there is no file "./nowhere"`},
		{127, []string{"."}, "is a directory; name a program in it"},
		{126, []string{dir}, "is a directory; name a program in it"},
		{126, []string{"/dev/null"}, "/dev/null is not a regular file"},
		{126, []string{"./plain.sh"}, "./plain.sh is not executable; type: chmod +x ./plain.sh\n"},
		{126, []string{"./plain.sh/x"}, "not a directory"},
		{127, []string{"./crlf.sh", "arg"}, `the #! line of ./crlf.sh ends in CR LF, as on Windows; type: sed -i 's/\r$//' ./crlf.sh` + "\n"},
		{127, []string{"./with space.sh"}, `type: sed -i 's/\r$//' './with space.sh'` + "\n"},
		{127, []string{"./crlf-env"}, "the #! line of ./crlf-env ends in CR LF"},
		{2, []string{"./crlf-option"}, "the #! line of ./crlf-option ends in CR LF"},
		{127, []string{"./lost"}, `the interpreter of ./lost, "/nowhere/interpreter" in its first line, does not exist`},
		{126, []string{"./no-line"}, "./no-line has no #! line, which names the interpreter of a script; type: run -- sh ./no-line\n"},
		{126, []string{"./latin"}, "type: run -- sh ./latin\n"},
		{126, []string{filepath.Join(dir, "no-line.py")}, "type: run -- python3 " + filepath.Join(dir, "no-line.py") + "\n"},
		{126, []string{"./marked"}, "./marked begins with a byte order mark"},
		{126, []string{"./utf16"}, "./utf16 is in UTF-16"},
		{126, []string{"./empty"}, "./empty is empty"},
		{126, []string{"./binary"}, "./binary is a program for another system or processor"},
	} {
		cmd := exec.Command(program.Binary(), append([]string{"run", "--"}, c.argv...)...)
		cmd.Dir, cmd.Env = dir, program.Environ(t, sim, "PATH="+os.Getenv("PATH"))
		p := program.StartCmd(t, cmd)
		if code := p.Exit(); code != c.code || !strings.Contains(p.Stderr.String(), c.says) || strings.Contains(p.Stderr.String(), "=secret") {
			t.Errorf("%.100q: exit %d, want %d and %q\n%.1000s", c.argv, code, c.code, c.says, p.Stderr.String())
		}
	}
	// If the file is valid, the command's own error is enough.
	cmd := exec.Command(program.Binary(), "run", "--", "./fails")
	cmd.Dir, cmd.Env = dir, program.Environ(t, sim)
	p := program.StartCmd(t, cmd)
	if code := p.Exit(); code != 127 || p.Stderr.String() != "" {
		t.Errorf("a command that ends with 127: exit %d\n%s", code, p.Stderr.String())
	}
}

// run's command must not use a corporate proxy to reach the proxy, however the variables
// are spelled.
func TestRunsCommandReachesTheProxyDespiteACorporateOne(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	for tool, argv := range map[string][]string{
		"curl":    {"sh", "-c", `curl -sS "$MIMECAST_BASE_URL/identity/whoami"`},
		"python3": {program.Python(), "-c", "import os, urllib.request; print(urllib.request.urlopen(os.environ['MIMECAST_BASE_URL'] + '/identity/whoami').read().decode())"},
	} {
		t.Run(tool, func(t *testing.T) {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skipf("%s is not on this machine", tool)
			}
			for _, list := range []string{"NO_PROXY=blob.test", "no_proxy=blob.test", "NO_PROXY=*", "no_proxy=a.test b.test,c.test", "NO_PROXY=blob.test:80"} {
				p := program.Start(t, program.Environ(t, sim, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"), "http_proxy=http://"+unreachable, list), append([]string{"run", "--"}, argv...)...)
				if code := p.Exit(); code != 0 || !strings.Contains(p.Stdout.String(), "CSIM22A104") {
					t.Errorf("%s: exit %d\n%s%s", list, code, p.Stdout.String(), p.Stderr.String())
				}
			}
		})
	}
}

func TestRefusedCredentialsAreCuredWhereTheyComeFrom(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{ClientSecret: "another"})
	id, _ := fileWith(t, simulator.DefaultClientID)
	secret, _ := fileWith(t, simulator.DefaultClientSecret)
	idFile := []string{"MIMECAST_CLIENT_ID=", "MIMECAST_CLIENT_ID_FILE=" + id}
	secretFile := []string{"MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE=" + secret}
	for _, c := range []struct {
		more []string
		cure string
	}{
		{nil, "Change MIMECAST_CLIENT_ID or MIMECAST_CLIENT_SECRET and restart the proxy."},
		{secretFile, "Correct the file in MIMECAST_CLIENT_SECRET_FILE, which the proxy reloads; if you change MIMECAST_CLIENT_ID, restart the proxy."},
		{idFile, "Change MIMECAST_CLIENT_SECRET and restart the proxy; it reloads the file in MIMECAST_CLIENT_ID_FILE."},
		{append(idFile, secretFile...), "Correct the file in MIMECAST_CLIENT_ID_FILE or MIMECAST_CLIENT_SECRET_FILE; the proxy reloads both."},
	} {
		p := program.Start(t, program.Environ(t, sim, c.more...))
		p.AwaitServing()
		if res, body := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 502 || !strings.Contains(body, c.cure) {
			t.Errorf("%d %s; want %q", res.StatusCode, body, c.cure)
		}
	}
}

func TestCheckSaysHowLongTheSecretIsAndWhatToDoNext(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const secret = "sekret-with-ü"
	sim := program.Simulate(t, simulator.Options{ClientSecret: secret})
	path, _ := fileWith(t, secret)
	for from, more := range map[string][]string{
		"MIMECAST_CLIENT_SECRET": {"MIMECAST_CLIENT_SECRET=" + secret},
		path:                     {"MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE=" + path},
	} {
		says := "a secret of 13 characters from " + from
		p := program.Start(t, program.Environ(t, sim, more...), "check")
		if code := p.Exit(); code != 0 || !strings.Contains(p.Stdout.String(), says) || !strings.HasSuffix(p.Stdout.String(), "\nAll steps passed. Start the proxy with: mimecast-proxy\n") || strings.Contains(p.Stdout.String(), secret) {
			t.Errorf("exit %d, want %q\n%s", code, says, p.Stdout.String())
		}
		p = program.Start(t, program.Environ(t, sim, more...), "check", "--json")
		if code := p.Exit(); code != 0 || !strings.Contains(p.Stdout.String(), says) || strings.Contains(p.Stdout.String(), "All steps") {
			t.Errorf("exit %d, want %q\n%s", code, says, p.Stdout.String())
		}
	}
	p := program.Start(t, program.Environ(t, sim), "check") // has another secret
	if code, out := p.Exit(), p.Stdout.String(); code != 1 || !strings.Contains(out, "characters from MIMECAST_CLIENT_SECRET") || strings.Contains(out, "All steps") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestVersionIsAFlagToo(t *testing.T) {
	t.Parallel()
	command, flag := program.Start(t, nil, "version"), program.Start(t, nil, "--version")
	if command.Exit() != 0 || flag.Exit() != 0 || flag.Stdout.String() != command.Stdout.String() || flag.Stdout.String() == "" {
		t.Errorf("%q, but %q%s", command.Stdout.String(), flag.Stdout.String(), flag.Stderr.String())
	}
}

func TestRunLendsACommandTheProxy(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Start(t, program.Environ(t, sim, "TEST_CHILD=1"), "run", "--", os.Args[0], "--flag", "arg")
	if code := p.Exit(); code != 7 || p.Stdout.String() != "200 true  [--flag arg]\n" {
		t.Errorf("exit %d\n%s%s", code, p.Stdout.String(), p.Stderr.String())
	}
	p = program.Start(t, program.Environ(t, sim, "TEST_CHILD=sleep"), "run", "--", os.Args[0])
	p.Stdout.Await(t, "the command", func(text string) bool { return strings.Contains(text, "sleeping") })
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit %d after SIGTERM", code)
	}
	for argv, want := range map[string]int{"/nowhere/command": 127, t.TempDir(): 126} {
		if code := program.Start(t, program.Environ(t, sim), "run", "--", argv).Exit(); code != want {
			t.Errorf("%s: exit %d, want %d", argv, code, want)
		}
	}
}
