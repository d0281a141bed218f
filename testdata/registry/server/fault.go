package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A fault is one of Faults' path elements, read.
type fault struct {
	text, target, kind string
	args               []string
	times              int // how often it strikes per path; 0: always
}

// oldNames are the shorter names of faults.
func oldName(how string) string {
	kind, number, _ := strings.Cut(how, "-")
	switch {
	case how == "status-429":
		return "any.429.after1"
	case how == "manifest-429":
		return "blob.429.after1"
	case kind == "status":
		return "any." + number
	case kind == "manifest":
		return "blob." + number
	case kind == "layer":
		return "layer." + number
	case how == "auth":
		return "any.login"
	case how == "platform":
		return "tag.platform"
	}
	return how
}

func parseFaults(how string) []fault {
	var all []fault
	for _, text := range strings.Split(oldName(how), "__") {
		parts := strings.Split(text, ".")
		f := fault{text: text, target: parts[0]}
		if len(parts) > 1 {
			f.kind = parts[1]
		}
		for _, arg := range parts[min(2, len(parts)):] {
			if n, err := strconv.Atoi(strings.TrimPrefix(arg, "x")); err == nil && arg[0] == 'x' {
				f.times = n
				continue
			}
			f.args = append(f.args, arg)
		}
		all = append(all, f)
	}
	return all
}

func (f fault) has(arg string) bool {
	for _, a := range f.args {
		if a == arg {
			return true
		}
	}
	return false
}

// number returns N of an argument nameN.
func (f fault) number(name string, otherwise int) int {
	for _, a := range f.args {
		if rest, ok := strings.CutPrefix(a, name); ok {
			if n, err := strconv.Atoi(rest); err == nil {
				return n
			}
		}
	}
	return otherwise
}

func (f fault) milliseconds(otherwise int) time.Duration {
	return time.Duration(f.number("ms", otherwise)) * time.Millisecond
}

// status is the kind as a number, 0 for others.
func (f fault) status() int {
	n, err := strconv.Atoi(f.kind)
	if err != nil || n < 400 || n > 599 {
		return 0
	}
	return n
}

// retryAfter is the header of that name, "" for none.
func (f fault) retryAfter() string {
	if n := f.number("after", -1); n >= 0 {
		return strconv.Itoa(n)
	}
	if n := f.number("date", -1); n >= 0 {
		return time.Now().Add(time.Duration(n) * time.Second).UTC().Format(http.TimeFormat)
	}
	return ""
}

// pause waits, unless the client goes.
func pause(req *request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-req.Context().Done():
		return false
	}
}
