package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// notStarted returns an error that explains why a command could not be started and what to
// type instead. Its exit code is that of shells: 127 if the command or its interpreter was not
// found, otherwise 126.
func notStarted(argv []string, err error) error {
	path, file := commandFile(argv[0])
	code, why := exitNotExecutable, ""
	switch {
	case file != nil:
		why = whyNotExecuted(path, file, err)
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.ENOTDIR):
		code, why = exitNotFound, whyNotFound(argv[0])
	}
	if errors.Is(err, fs.ErrNotExist) { // perhaps the interpreter
		code = exitNotFound
	}
	if why == "" {
		return &ExitError{code, fmt.Errorf("starting the command: %w", err)}
	}
	return &ExitError{code, fmt.Errorf("the command was not started: %s", why)}
}

// commandFile returns the path and file info of a command; nil info if there is no such file.
// It looks up a bare name in PATH only.
func commandFile(name string) (string, fs.FileInfo) {
	path := name
	if filepath.Base(name) == name {
		found, err := exec.LookPath(name)
		if err != nil {
			return "", nil
		}
		path = found
	}
	file, err := os.Stat(path)
	if err != nil {
		return "", nil
	}
	return path, file
}

// maxShownCommand is the longest command line, in bytes, that an error quotes.
const maxShownCommand = 100

var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// whyNotFound explains why a command was not found.
func whyNotFound(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "its name is empty; check the variable or the quotes after run --"
	case assignment.MatchString(name):
		variable, _, _ := strings.Cut(name, "=")
		return fmt.Sprintf("%s=… sets a variable, which only a shell or env understands; type: run -- env %s=… CMD", variable, variable)
	case strings.ContainsAny(name, " \t\n|&;<>") && len(name) > maxShownCommand:
		return "a whole command line is one word, and no program has that name; type: run -- CMD ARG…, or run -- sh -c '…'"
	case strings.ContainsAny(name, " \t\n|&;<>"):
		return fmt.Sprintf("%s is one word, and no program has that name; type: run -- %s", quoteWord(name), asCommand(name))
	case filepath.Base(name) != name:
		return fmt.Sprintf("there is no file %q", name)
	}
	switch file, err := os.Stat(name); {
	case err != nil:
		return fmt.Sprintf("no program %q in PATH; a function, alias or builtin of a shell needs: run -- sh -c '…'", name)
	case file.IsDir():
		return fmt.Sprintf("no program %q in PATH, and here it is a directory; name a program in it", name)
	default:
		return fmt.Sprintf("no program %q in PATH; for the file in this directory type: run -- ./%s", name, name)
	}
}

// asCommand returns how to type a command line that was passed as one word: as separate words,
// or with sh -c if it needs a shell.
func asCommand(line string) string {
	if strings.ContainsAny(line, "|&;<>$`\"'\\(){}*?[]~#\n") {
		return "sh -c " + quoteWord(line)
	}
	return strings.Join(strings.Fields(line), " ")
}

// quoteWord quotes a word for a shell.
func quoteWord(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// whyNotExecuted explains why the system did not execute a file; empty if the cause is unknown.
func whyNotExecuted(path string, file fs.FileInfo, err error) string {
	switch {
	case file.IsDir():
		return fmt.Sprintf("%s is a directory; name a program in it", path)
	case !file.Mode().IsRegular():
		return fmt.Sprintf("%s is not a regular file (mode %v); name a program", path, file.Mode())
	}
	head := readHead(path)
	interpreter, isScript := shebang(head)
	switch {
	case errors.Is(err, fs.ErrPermission) && file.Mode()&0o111 == 0:
		return fmt.Sprintf("%s is not executable; type: chmod +x %s", path, quotePath(path))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("%s must not be executed: check its permissions, its interpreter's, and the mount option noexec", path)
	case strings.HasSuffix(interpreter, "\r"):
		return carriageReturn(path)
	case isScript && errors.Is(err, fs.ErrNotExist):
		name, _, _ := strings.Cut(interpreter, " ")
		return fmt.Sprintf("the interpreter of %s, %q in its first line, does not exist; correct that line", path, name)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("a file that %s needs does not exist, such as its dynamic loader: use a build for this system", path)
	case errors.Is(err, syscall.ENOEXEC):
		return whyNoFormat(path, head)
	default:
		return ""
	}
}

// whyNoFormat explains from a file's first bytes why the system cannot execute its format.
func whyNoFormat(path string, head []byte) string {
	withoutMark, marked := bytes.CutPrefix(head, []byte("\ufeff"))
	_, isScript := shebang(withoutMark)
	utf16 := bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff"))
	switch {
	case len(head) == 0:
		return fmt.Sprintf("%s is empty", path)
	case marked && isScript:
		return fmt.Sprintf("%s begins with a byte order mark, not with #!; save it as UTF-8 without one", path)
	case utf16:
		return fmt.Sprintf("%s is in UTF-16; save it as UTF-8 without a byte order mark", path)
	case isScript:
		return fmt.Sprintf("the #! line of %s cannot be used; correct it", path)
	case bytes.IndexByte(head, 0) >= 0:
		return fmt.Sprintf("%s is a program for another system or processor, or no program", path)
	default:
		return fmt.Sprintf("%s has no #! line, which names the interpreter of a script; type: run -- %s %s", path, interpreterOf(path), quotePath(path))
	}
}

// interpreterOf guesses a script's interpreter from its file name.
func interpreterOf(path string) string {
	known := map[string]string{".py": "python3", ".pl": "perl", ".rb": "ruby", ".js": "node", ".mjs": "node", ".ps1": "pwsh -File", ".bash": "bash", ".zsh": "zsh", ".php": "php"}
	if name, ok := known[strings.ToLower(filepath.Ext(path))]; ok {
		return name
	}
	return "sh"
}

// quotePath quotes path for a shell, if necessary.
func quotePath(path string) string {
	if strings.ContainsAny(path, " \t\n'\"$`\\&;|<>()*?[]{}~#!") {
		return quoteWord(path)
	}
	return path
}

func carriageReturn(path string) string {
	return fmt.Sprintf("the #! line of %s ends in CR LF, as on Windows; type: sed -i 's/\\r$//' %s", path, quotePath(path))
}

// hasCarriageReturn reports whether a command is a script whose #! line ends in CR LF. Then env
// does not find the interpreter (exit code 127), or a shell takes the CR for an option (exit
// code 2). Neither error message shows the CR.
func hasCarriageReturn(path string) bool {
	interpreter, _ := shebang(readHead(path))
	return strings.HasSuffix(interpreter, "\r")
}

// shebang returns the first line of a script without #! and the blanks that follow. ok is
// false if the line does not begin with #!.
func shebang(head []byte) (interpreter string, ok bool) {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	rest, ok := bytes.CutPrefix(line, []byte("#!"))
	return strings.TrimLeft(string(rest), " \t"), ok
}

// readHead returns the first 512 bytes of a file; nil if it cannot be read.
func readHead(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	head, err := io.ReadAll(io.LimitReader(f, 512))
	if errors.Join(err, f.Close()) != nil {
		return nil
	}
	return head
}
