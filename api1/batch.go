package api1

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// maxLine bounds an event in a batch file, in bytes. A longer line is left out.
const maxLine = 1 << 20

// copyBatches adds the events of batch files that a position contains.
func (t *translation) copyBatches(to *file, files []batchFile, p position) error {
	for _, f := range files {
		if err := t.copyBatch(to, f.URL, p); err != nil {
			return err
		}
	}
	return nil
}

func (t *translation) copyBatch(to *file, address string, p position) error {
	body, err := t.download(address)
	if err != nil {
		return err
	}
	defer body.Close()
	content, err := unpack(body)
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(content, 64<<10)
	for {
		line, err := readLine(lines)
		if line = bytes.TrimSpace(line); len(line) > 0 {
			e, parseErr := parseEvent(line)
			switch {
			case parseErr != nil:
				t.skipped++
			case p.contains(e.timestamp()):
				if err := to.add(e); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(err, errLongLine):
			t.skipped++
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading a batch file: %w", err)
		}
	}
}

// download fetches a batch file. The request has nothing of the client's but its
// end.
func (t *translation) download(address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("the address of a batch file is not a URL") // without it: it is a permission
	}
	req, err := http.NewRequestWithContext(t.r.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the address of a batch file is not a URL")
	}
	res, err := t.Download.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("downloading a batch file: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, statusError(res.StatusCode)
	}
	return res.Body, nil
}

// statusError is the status of a download that is not 200.
type statusError int

// Error implements error.
func (e statusError) Error() string {
	return fmt.Sprintf("a batch file's host responded with %d", int(e))
}

// batchProblem is the error response for a download that failed.
func batchProblem(err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	if status, ok := errors.AsType[statusError](err); ok {
		return problem.New(event.UpstreamUnreachable, "Mimecast's batch file cannot be downloaded: its host responded with %d. Try again.", int(status)).Because(err)
	}
	return problem.New(event.UpstreamUnreachable, "Mimecast's batch file cannot be downloaded. Allow its host in your firewall or corporate proxy.").Because(err)
}

// unpack returns the content of a file, which is compressed, whatever its headers say,
// if it begins as gzip does.
func unpack(body io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(body, 32<<10)
	head, err := in.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading a batch file: %w", err)
	}
	if len(head) < 2 || head[0] != 0x1f || head[1] != 0x8b {
		return in, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("unpacking a batch file: %w", err)
	}
	return z, nil
}

var errLongLine = errors.New("the line is too long")

// readLine returns a line without its end. It has read a line that is too long, and
// returns errLongLine in its place.
func readLine(r *bufio.Reader) (line []byte, err error) {
	long := false
	for {
		part, err := r.ReadSlice('\n')
		switch {
		case long || len(line)+len(part) > maxLine:
			long, line = true, nil
		case line == nil && err == nil:
			return part, nil // valid until the next read
		default:
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if long && err == nil {
			return nil, errLongLine
		}
		return line, err
	}
}
