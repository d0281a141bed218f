package metrics

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text is s in Prometheus's text format, version 0.0.4. The library for it
// would cost every start of a node's programs the set-up of its protocol
// buffers; tests read the text with it.
func (s *Sums) Text() []byte {
	var b bytes.Buffer
	perAccount := func(name, help string, value func(*Account) string) {
		head(&b, name, "counter", help)
		for _, account := range slices.Sorted(maps.Keys(s.Accounts)) {
			fmt.Fprintf(&b, "%s{account=%s} %s\n", name, quote(account), value(s.Accounts[account]))
		}
	}
	whole := func(get func(*Account) int64) func(*Account) string {
		return func(a *Account) string { return strconv.FormatInt(get(a), 10) }
	}
	perAccount("berth_image_hits_total", "Images that the node's store had when a job wanted them.", whole(func(a *Account) int64 { return a.Hits }))
	perAccount("berth_image_misses_total", "Images that had to be got for a job first.", whole(func(a *Account) int64 { return a.Misses }))
	perAccount("berth_pulled_bytes_total", "Bytes of layers that came from registries, as transferred.", whole(func(a *Account) int64 { return a.Pulled }))
	perAccount("berth_containers_total", "Containers that were made for steps.", whole(func(a *Account) int64 { return a.Containers }))
	perAccount("berth_image_wait_seconds_total", "Seconds for which this node, as part of an allocation, waited for images.",
		func(a *Account) string { return strconv.FormatFloat(a.Waited, 'g', -1, 64) })
	s.failures(&b)
	s.histograms(&b)
	head(&b, "berth_evictions_total", "counter", "Images that left the store to make room.")
	fmt.Fprintf(&b, "berth_evictions_total %d\n", s.Evicted)
	head(&b, "berth_evicted_bytes_total", "counter", "Bytes of the images that left the store to make room.")
	fmt.Fprintf(&b, "berth_evicted_bytes_total %d\n", s.EvictedBytes)
	return b.Bytes()
}

func (s *Sums) failures(b *bytes.Buffer) {
	const name = "berth_failures_total"
	head(b, name, "counter", "Images and containers that a job did not get, by cause.")
	for _, account := range slices.Sorted(maps.Keys(s.Accounts)) {
		counts := s.Accounts[account].Failures
		for _, cause := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(b, "%s{account=%s,cause=%s} %d\n", name, quote(account), quote(cause), counts[cause])
		}
	}
}

func (s *Sums) histograms(b *bytes.Buffer) {
	const name = "berth_phase_seconds"
	head(b, name, "histogram", "How long each phase took.")
	for _, phase := range slices.Sorted(maps.Keys(s.Phases)) {
		h, label, count := s.Phases[phase], quote(phase), int64(0)
		for i, n := range h.Counts {
			count += n
			le := "+Inf"
			if i < len(bounds()) {
				le = strconv.FormatFloat(bounds()[i], 'g', -1, 64)
			}
			fmt.Fprintf(b, "%s_bucket{phase=%s,le=\"%s\"} %d\n", name, label, le, count)
		}
		fmt.Fprintf(b, "%s_sum{phase=%s} %s\n%s_count{phase=%s} %d\n", name, label, strconv.FormatFloat(h.Sum, 'g', -1, 64), name, label, count)
	}
}

func head(b *bytes.Buffer, name, kind, help string) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// quote is the value of a label: UTF-8, with the format's three escapes.
func quote(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
