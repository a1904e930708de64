package debuginfo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// download is that of one file from one server.
type download struct {
	servers *Servers
	url     string
	name    string
	part    *part
	tell    teller

	from  origin
	size  int64 // of the whole file, -1 if it is not known
	got   int64 // bytes in the part
	most  int64 // bytes that the part ever had
	again bool  // a request went before
}

// origin says what a part is the beginning of. A part is continued only if the same server has a file of the same size, and, if it names
// versions (ETag, Last-Modified), of the same version.
type origin struct {
	URL     string `json:"url"`
	Size    int64  `json:"size"` // bytes of the whole file
	Version string `json:"version,omitempty"`
}

const (
	// cuts is how often in a row a transfer may break off after less than enough new bytes.
	cuts   = 4
	enough = 1 << 20
	// slowest is what elfutils wants of a server within the timeout.
	slowest = 100 << 10
	// maxOrigin bounds the file of an origin, in bytes.
	maxOrigin = 64 << 10
)

// errMissing says that a server does not have the file.
var errMissing = errors.New("it does not have the file")

// run downloads the file. If that fails, the part has nothing that is wrong as far as anybody can know.
func (d *download) run(ctx context.Context) error {
	if err := d.resume(); err != nil {
		return &diskError{err}
	}
	for left := cuts; ; left-- {
		before := d.most
		err := d.try(ctx)
		if err == nil {
			return d.judge()
		}
		if d.most-before >= enough {
			left = cuts
		}
		var cut *cutError
		if !errors.As(err, &cut) || left <= 1 || ctx.Err() != nil {
			return err
		}
	}
}

// resume finds out what the part is the beginning of.
func (d *download) resume() error {
	b, err := plainfile.Read(d.part.from, maxOrigin)
	if err == nil && json.Unmarshal(b, &d.from) == nil && d.from.URL == d.url {
		d.got, err = d.part.file.Seek(0, io.SeekEnd)
		if d.got < d.from.Size {
			d.most = d.got
			return err
		}
	}
	d.from, d.got = origin{}, 0 // the part stays until a server has all of the file
	return nil
}

// restart empties the part.
func (d *download) restart() error {
	d.from, d.got = origin{}, 0
	if err := d.part.file.Truncate(0); err != nil {
		return err
	}
	_, err := d.part.file.Seek(0, io.SeekStart)
	return err
}

// judge checks a complete part. Nothing is kept of a file that is another one.
func (d *download) judge() error {
	err := checkFile(d.part.file, d.part.id)
	if err == nil {
		return nil
	}
	if err := d.restart(); err != nil {
		return &diskError{err}
	}
	return fmt.Errorf("what it sent is not the file: %w; nothing of it was kept", err)
}

// cutError says that a transfer broke off.
type cutError struct{ err error }

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

// try makes one request, and takes what it gives.
func (d *download) try(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := newWatch(d.servers.Timeout, cancel)
	defer watch.stop()
	resp, err := d.ask(ctx)
	if err != nil {
		return &unreachableError{because(ctx, err)}
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if err := d.begin(resp); err != nil {
		return err
	}
	return d.copy(ctx, resp.Body, watch)
}

// because returns why a context ended, or the error if it has not.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// ask sends the request for what is missing.
func (d *download) ask(ctx context.Context) (*http.Response, error) {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return nil, err
	}
	if d.servers.UserAgent != "" {
		req.Header.Set("User-Agent", d.servers.UserAgent)
	}
	if d.servers.MaxSize > 0 {
		req.Header.Set("X-DEBUGINFOD-MAXSIZE", strconv.FormatInt(d.servers.MaxSize, 10))
	}
	if d.got > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.got))
		if d.from.Version != "" {
			req.Header.Set("If-Range", d.from.Version)
		}
	}
	return d.servers.client.Do(req)
}

// begin reads the head of an answer, and prepares the part for its body.
func (d *download) begin(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		return d.beginWhole(resp)
	case http.StatusPartialContent:
		first, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if ok && d.got > 0 && first == d.got && size == d.from.Size && (d.from.Version == "" || version(resp.Header) == "" || version(resp.Header) == d.from.Version) {
			d.size = size
			d.announce("goes on")
			return d.room()
		}
		return d.refused(fmt.Errorf("it sent the part %.80q of another file", resp.Header.Get("Content-Range")))
	case http.StatusRequestedRangeNotSatisfiable:
		return d.refused(errors.New("it refuses to send a part of the file"))
	case http.StatusNotFound:
		return errMissing
	}
	return fmt.Errorf("it answers %.80q", resp.Status)
}

// refused empties the part, so that the next request asks for all of the file.
func (d *download) refused(why error) error {
	if err := d.restart(); err != nil {
		return &diskError{err}
	}
	return &cutError{why}
}

// beginWhole prepares for all of a file. A server that cannot send parts sends that too.
func (d *download) beginWhole(resp *http.Response) error {
	if err := d.restart(); err != nil {
		return &diskError{err}
	}
	d.size = resp.ContentLength
	if n, err := strconv.ParseInt(resp.Header.Get("X-DEBUGINFOD-SIZE"), 10, 64); err == nil && n > 0 && d.size < 0 {
		d.size = n
	}
	d.announce("begins")
	if err := d.room(); err != nil {
		return err
	}
	if d.size < 0 {
		return nil // a part of it would not be known to be a part of the same file
	}
	d.from = origin{d.url, d.size, version(resp.Header)}
	b, err := json.Marshal(d.from)
	if err == nil {
		err = os.WriteFile(d.part.from, b, 0o600)
	}
	if err != nil {
		return &diskError{err}
	}
	return nil
}

// announce tells what is downloaded, the first time of a download.
func (d *download) announce(how string) {
	if d.again {
		return
	}
	d.again = true
	size := "of unknown size"
	if d.size >= 0 {
		size = "of " + bytesize.Format(uint64(d.size))
	}
	at := ""
	if d.got > 0 {
		at = " at " + bytesize.Format(uint64(d.got))
	}
	d.tell("the download of %s %s %s%s: %s", d.name, size, how, at, d.url)
}

// room checks that there is room for what is missing.
func (d *download) room() error {
	if m := d.servers.MaxSize; m > 0 && d.size > m {
		return fmt.Errorf("the file has %s, DEBUGINFOD_MAXSIZE is %d bytes", bytesize.Format(uint64(d.size)), m)
	}
	if err := d.part.cache.room(max(0, d.size-d.got)); err != nil {
		return &diskError{err}
	}
	return nil
}

// version returns what names the version of a file, "" if nothing that If-Range takes does (RFC 9110, 13.1.5).
func version(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return h.Get("Last-Modified")
}

// contentRange reads "bytes FIRST-LAST/SIZE". It wants all that is left of the file.
func contentRange(text string) (first, size int64, ok bool) {
	var last int64
	if n, err := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &size); n != 3 || err != nil {
		return 0, 0, false
	}
	return first, size, first >= 0 && last == size-1 && first <= last
}

// copy takes the body of an answer to its end.
func (d *download) copy(ctx context.Context, body io.Reader, watch *watch) error {
	limit := d.part.cache.Limit
	if m := d.servers.MaxSize; m > 0 {
		limit = min(limit, m)
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		if d.got+int64(n) > limit || d.size >= 0 && d.got+int64(n) > d.size {
			return errors.Join(fmt.Errorf("it sends more than %s", bytesize.Format(uint64(max(d.size, limit)))), d.restart())
		}
		if _, err := d.part.file.Write(buf[:n]); err != nil {
			return &diskError{err}
		}
		d.got += int64(n)
		d.most = max(d.most, d.got)
		watch.moved(n)
		if p := d.servers.Progress; p != nil && n > 0 {
			p(d.got, d.size)
		}
		switch {
		case err == io.EOF && (d.size < 0 || d.got == d.size):
			return nil
		case err == io.EOF:
			return &cutError{fmt.Errorf("it sent %d of %d bytes", d.got, d.size)}
		case err != nil && context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			return &cutError{fmt.Errorf("it sent %d bytes, then the connection broke: %w", d.got, err)}
		}
	}
}

// watch ends a download that gets too slow.
type watch struct {
	timeout time.Duration
	timer   *time.Timer
	moving  int
}

func newWatch(timeout time.Duration, cancel context.CancelCauseFunc) *watch {
	return &watch{timeout: timeout, timer: time.AfterFunc(timeout, func() {
		cancel(fmt.Errorf("it sent less than 100 KiB in %v (DEBUGINFOD_TIMEOUT sets the seconds)", timeout))
	})}
}

// moved notes that n bytes came.
func (w *watch) moved(n int) {
	if w.moving += n; w.moving >= slowest {
		w.moving = 0
		w.timer.Reset(w.timeout)
	}
}

func (w *watch) stop() { w.timer.Stop() }
