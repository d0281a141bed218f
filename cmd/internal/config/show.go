package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Value is one setting as it stands, for `berth config show`.
type Value struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin Origin `json:"origin"`

	text string // Value as TOML writes it
}

// String returns the value as TOML writes it.
func (v Value) String() string { return v.text }

// Values returns every setting of c in the order of Settings. Those of
// registries are listed for every host that some file mentions.
func (c *Config) Values() []Value {
	var all []Value
	for _, s := range Settings() {
		for _, host := range c.hosts(s) {
			all = append(all, s.value(c, host))
		}
	}
	return append(all, c.ruleValues()...)
}

// value is the setting as it may be shown: without passwords.
func (s Setting) value(c *Config, host string) Value {
	at := s.at(c, host)
	v := Value{Key: s.fullKey(host), Value: plain(deref(at)), Origin: c.Origin(s.fullKey(host)), text: format(at)}
	if s.shown != nil {
		v.Value = s.shown(v.Value)
		text := fmt.Sprint(v.Value)
		v.text = format(&text)
	}
	return v
}

// hosts returns the registries that s has values for; one empty name for a
// setting that has only one value.
func (c *Config) hosts(s Setting) []string {
	if !s.perHost() {
		return []string{""}
	}
	var hosts []string
	for h := range c.Registry {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	return hosts
}

// Template returns a berth.toml in which every setting is explained and
// commented out, with its default.
func Template() string {
	var b strings.Builder
	b.WriteString("# Settings of Berth. Unknown keys are errors. `berth config show` says what\n# holds, and which file or variable set it.\n")
	section, c := "", defaults()
	for _, s := range Settings() {
		head, name := s.split()
		if head != section {
			section = head
			fmt.Fprintf(&b, "\n%s[%s]\n", commentedIf(s.perHost()), head)
		}
		b.WriteString("\n" + wrap(s.Doc+s.openNote(), "# ", 78))
		fmt.Fprintf(&b, "#%s = %s\n", name, s.sample(c))
	}
	return b.String() + ruleTemplate()
}

// Intro says what every page on settings begins with.
const Intro = "Settings of Berth, in TOML. The site's are in " + Dir + "/berth.toml and " + Dir + "/conf.d/*.toml, a user's in ~/.config/berth/berth.toml for those which the site leaves to users. Unknown keys are errors. berth config show prints what holds, and which file or variable set it; berth config template prints a file in which every setting is explained.\n\nThe part of a key before its last dot is a table: store.dir is dir below [store]."

// A Description is a setting in words: its full key, its default or an example
// as TOML, and what it means.
type Description struct{ Key, Sample, Help string }

// Describe describes every setting, in the order of Settings, and then the keys
// of rules.
func Describe() []Description {
	var all []Description
	c := defaults()
	for _, s := range Settings() {
		table, name := s.split()
		all = append(all, Description{table + "." + name, s.sample(c), s.Doc + s.openNote()})
	}
	for _, s := range ruleSettings() {
		all = append(all, Description{"[[" + ruleKey + "]] " + s.key, s.example, s.doc})
	}
	return all
}

// split returns the table and the name of a setting, with an example's host.
func (s Setting) split() (table, name string) {
	i := strings.LastIndexByte(s.Key, '.')
	return strings.Replace(s.Key[:i], "*", `"registry.example.org"`, 1), s.Key[i+1:]
}

func commentedIf(yes bool) string {
	if yes {
		return "#"
	}
	return ""
}

func (s Setting) openNote() string {
	switch {
	case !s.Open:
		return ""
	case s.Env() == "":
		return " Users may set it too."
	default:
		return " Users may set it too, also as $" + s.Env() + "."
	}
}

// sample returns the example of a setting, else its default.
func (s Setting) sample(c *Config) string {
	if s.Example != "" {
		return s.Example
	}
	return format(s.at(c, "registry.example.org"))
}

// wrap breaks text into lines of at most width bytes, each after prefix.
func wrap(text, prefix string, width int) string {
	var b strings.Builder
	line := prefix
	for _, word := range strings.Fields(text) {
		if len(line)+len(word) > width && line != prefix {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = prefix
		}
		line += word + " "
	}
	return b.String() + strings.TrimRight(line, " ") + "\n"
}

// deref returns what a field's pointer points at.
func deref(at any) any {
	switch v := at.(type) {
	case *string:
		return *v
	case *bool:
		return *v
	case *time.Duration:
		return *v
	case *[]string:
		return *v
	case *Size:
		return *v
	case *Share:
		return *v
	case *int:
		return *v
	}
	panic(fmt.Sprintf("config: a setting of type %T", at))
}

// plain returns v as JSON should show it: durations as in files.
func plain(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return trimDuration(v)
	case Size:
		return v.String()
	case Share:
		return v.String()
	case []string:
		if v == nil {
			return []string{}
		}
	}
	return v
}
