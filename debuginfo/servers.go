package debuginfo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// teller is told what is worth a line.
type teller = func(format string, args ...any)

// Servers are debuginfod servers.
type Servers struct {
	URLs []string // without a slash at the end
	// Timeout is the longest time in which a server has to send 100 KiB, or all.
	Timeout time.Duration
	MaxSize int64 // bytes of a file; 0 for no limit beside that of the cache
	// Progress is called as bytes come, often. size is -1 if it is not known. It may be nil.
	Progress func(got, size int64)
	// UserAgent names the program to servers.
	UserAgent string

	client *retryablehttp.Client
	down   map[string]error // servers that did not answer: they are not asked again
}

// Defaults of elfutils (debuginfod-find(1)).
const (
	defaultTimeout = 90 * time.Second
	defaultRetries = 2
)

// ServersFromEnvironment returns the servers of DEBUGINFOD_URLS, nil if it names none, and what in the variables is not obeyed.
func ServersFromEnvironment(getenv func(string) string) (s *Servers, ignored []string, err error) {
	s = &Servers{}
	for _, word := range strings.Fields(getenv("DEBUGINFOD_URLS")) {
		if policy, ok := strings.CutPrefix(word, "ima:"); ok {
			if policy == "enforcing" {
				ignored = append(ignored, "DEBUGINFOD_URLS: signatures of files (ima:enforcing) are not checked")
			}
			continue
		}
		u, err := url.Parse(word)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			ignored = append(ignored, fmt.Sprintf("DEBUGINFOD_URLS: %.200q is no URL of http or https", word))
			continue
		}
		s.URLs = append(s.URLs, strings.TrimRight(strings.TrimSuffix(strings.TrimRight(word, "/"), "/buildid"), "/"))
	}
	if len(s.URLs) == 0 {
		return nil, ignored, nil
	}
	seconds, err := number(getenv, "DEBUGINFOD_TIMEOUT", int64(defaultTimeout/time.Second), 1<<31)
	if err != nil {
		return nil, ignored, err
	}
	retries, err := number(getenv, "DEBUGINFOD_RETRY_LIMIT", defaultRetries, 100)
	if err != nil {
		return nil, ignored, err
	}
	if s.MaxSize, err = number(getenv, "DEBUGINFOD_MAXSIZE", 0, 1<<62); err != nil {
		return nil, ignored, err
	}
	s.Timeout = time.Duration(seconds) * time.Second
	s.client = newClient(int(retries))
	return s, ignored, nil
}

// number reads a variable. Zero means the default, as in elfutils.
func number(getenv func(string) string, name string, otherwise, most int64) (int64, error) {
	text := strings.TrimSpace(getenv(name))
	if text == "" || text == "0" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%s=%.40q: want a number from 0 to %d", name, text, most)
	}
	return n, nil
}

// newClient returns a client that repeats a request which got no answer, or one of a server with a fault of its own.
func newClient(retries int) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	c.Logger, c.RetryMax = nil, retries
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	if t, ok := c.HTTPClient.Transport.(*http.Transport); ok {
		t.DisableCompression = true // lengths and ranges are those of the file
	}
	return c
}

// noServerError says that no server gave a file, and what is wrong with those that did not just say that they have none.
type noServerError struct{ failed []string }

func (e *noServerError) Error() string { return "no server has it: " + strings.Join(e.failed, "; ") }

// get downloads a file from the first server that has it, into a part.
func (s *Servers) get(ctx context.Context, w Want, p *part, tell teller) error {
	var none noServerError
	for _, base := range s.URLs {
		err := s.down[base]
		if err == nil {
			d := download{servers: s, url: base + "/buildid/" + w.BuildID.String() + "/debuginfo", part: p, tell: tell, name: w.Name()}
			if err = d.run(ctx); err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var disk *diskError
		if errors.As(err, &disk) {
			return err // no other server helps
		}
		var unreachable *unreachableError
		if errors.As(err, &unreachable) {
			if s.down == nil {
				s.down = map[string]error{}
			}
			s.down[base] = err
		}
		if !errors.Is(err, errMissing) {
			none.failed = append(none.failed, base+": "+err.Error())
		}
	}
	return &none
}

// diskError says that the cache cannot be written.
type diskError struct{ err error }

func (e *diskError) Error() string { return e.err.Error() }
func (e *diskError) Unwrap() error { return e.err }

// unreachableError says that a server gives no answer at all.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }
