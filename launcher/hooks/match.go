package hooks

import "regexp"

// When says which containers want a hook: those of which all conditions hold
// that it has. One without conditions is for none.
type When struct {
	Always        *bool             `json:"always,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"` // patterns of keys and values
	Commands      []string          `json:"commands,omitempty"`    // patterns, of which one has to match
	HasBindMounts *bool             `json:"hasBindMounts,omitempty"`
}

// Facts are what conditions ask of a container.
type Facts struct {
	Command     string            // the program as it was given; "" where nobody knows
	Annotations map[string]string // the image's labels
	BindMounts  bool              // the user asked for mounts
}

// Wants says whether the container wants h.
func (h *Hook) Wants(f *Facts) bool {
	w, some := &h.When, false
	if w.Always != nil {
		if !*w.Always {
			return false
		}
		some = true
	}
	if w.HasBindMounts != nil {
		if *w.HasBindMounts && !f.BindMounts {
			return false
		}
		some = some || *w.HasBindMounts
	}
	for key, value := range w.Annotations {
		if !annotated(f.Annotations, key, value) {
			return false
		}
		some = true
	}
	if len(w.Commands) > 0 {
		if !matches(w.Commands, f.Command) {
			return false
		}
		some = true
	}
	return some
}

func annotated(annotations map[string]string, key, value string) bool {
	for k, v := range annotations {
		if matches([]string{key}, k) && matches([]string{value}, v) {
			return true
		}
	}
	return false
}

func matches(patterns []string, text string) bool {
	for _, p := range patterns {
		if ok, err := regexp.MatchString(p, text); ok && err == nil {
			return true
		}
	}
	return false
}
