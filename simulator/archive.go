package simulator

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Content is an endless file whose bytes are computed from its name. A test can check any
// part of a terabyte without storing it. Use [io.NewSectionReader] to get a file of a
// given size.
type Content string

// ReadAt implements [io.ReaderAt]. Content has no end, so ReadAt fails only at a negative
// offset.
func (c Content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("reading content at a negative offset")
	}
	key := c.seed()
	var word [8]byte
	for n := 0; n < len(p); {
		at := uint64(off) + uint64(n)
		if rest := p[n:]; at%8 == 0 && len(rest) >= 8 {
			binary.LittleEndian.PutUint64(rest, mix(key+at/8))
			n += 8
			continue
		}
		binary.LittleEndian.PutUint64(word[:], mix(key+at/8))
		n += copy(p[n:], word[at%8:])
	}
	return len(p), nil
}

func (c Content) seed() uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, string(c)) // hash.Hash never returns an error
	return h.Sum64()
}

// mix is the splitmix64 hash: it spreads a counter over 64 bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Check reads r to its end and compares it with the start of the content. It returns the
// number of matching bytes, and an error at the first mismatch or read error.
func (c Content) Check(r io.Reader) (n int64, err error) {
	got, want := make([]byte, chunkSize), make([]byte, chunkSize)
	for {
		k, err := r.Read(got)
		_, _ = c.ReadAt(want[:k], n) // ReadAt fails only at a negative offset
		for i := range k {
			if got[i] != want[i] {
				return n + int64(i), fmt.Errorf("byte %d is not the content's", n+int64(i))
			}
		}
		n += int64(k)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

const chunkSize = 32 << 10

// getFile serves a file of the archive without an envelope. With a size, in the query or
// in data, the file is that much [Content] named after the identifier. Without a size, it
// is a message. Content-Length is set only if length=true.
func (s *Simulator) getFile(w http.ResponseWriter, r *http.Request) {
	c, err := parseCall(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		s.reject(w, r, http.StatusBadRequest, "err_request_malformed", err.Error())
		return
	}
	args := fileArgs(c, r.URL.Query())
	id := args.Get("id")
	if args.Get("size") == "" {
		s.sendMessage(w, r, id)
		return
	}
	size, err := ParseSize(args.Get("size"))
	if err != nil {
		s.writeResult(w, r, failed(object{"id": id}, "err_validation_invalid_size", err.Error()))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if args.Get("length") == "true" {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	_ = http.NewResponseController(w).Flush()
	_, _ = io.CopyBuffer(writerOnly{w}, io.NewSectionReader(Content(id), 0, size), make([]byte, chunkSize)) // the client may have disconnected
}

// writerOnly hides ReadFrom. io.CopyBuffer would otherwise call net/http's ReadFrom, which
// bypasses the buffer and any wrapper around the writer.
type writerOnly struct{ io.Writer }

func fileArgs(c *call, query url.Values) url.Values {
	args := url.Values{}
	for _, name := range []string{"id", "size", "length"} {
		value := query.Get(name)
		if value == "" {
			value = c.arg(name)
		}
		args.Set(name, value)
	}
	// A JSON number is a float64, which fmt prints with an exponent if it is large.
	if len(c.Data) > 0 {
		if n, ok := c.Data[0]["size"].(float64); ok && query.Get("size") == "" {
			args.Set("size", strconv.FormatFloat(n, 'f', -1, 64))
		}
	}
	return args
}

func (s *Simulator) sendMessage(w http.ResponseWriter, r *http.Request, id string) {
	m, ok := s.messageOf(id)
	if !ok {
		s.writeResult(w, r, failed(object{"id": id}, "err_archive_file_not_found", "There is no such file"))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = fmt.Fprintf(w, "Message-ID: %s\r\nDate: %s\r\nFrom: <%s>\r\nTo: <%s>\r\nSubject: %s\r\n\r\nThis message was made up.\r\n", // the client may have disconnected
		m.id, m.at.Format("Mon, 02 Jan 2006 15:04:05 -0700"), m.sender, m.recipient, m.subject)
}

var units = map[string]float64{"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}

// ParseSize parses a size in bytes such as 1048576, 512KiB or 1.5GiB. It returns an error
// for an unknown unit, a negative number, or more than half of [math.MaxInt64].
func ParseSize(text string) (int64, error) {
	number := strings.TrimRight(strings.TrimSpace(text), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit, ok := units[strings.ToLower(strings.TrimSpace(strings.TrimSpace(text)[len(number):]))]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !ok || !(n >= 0) || n*unit > math.MaxInt64/2 {
		return 0, fmt.Errorf("%q is no size such as 1048576, 512KiB or 1GiB", text)
	}
	return int64(n * unit), nil
}

// uploadArg is the x-mc-arg header of an upload, which describes the body.
type uploadArg struct {
	Data []struct {
		SHA256   string `json:"sha256"`
		FileSize *int64 `json:"fileSize"`
	} `json:"data"`
}

func parseUploadArg(header string) (arg uploadArg, err error) {
	if err = json.Unmarshal([]byte(header), &arg); err == nil && len(arg.Data) != 1 {
		err = errors.New("x-mc-arg must describe one file")
	}
	return arg, err
}
