package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// assign stores a value as TOML knows it in the field that to points at.
func assign(to, value any) error {
	switch to := to.(type) {
	case *string:
		return assignAs(to, value, "text in quotes")
	case *bool:
		return assignAs(to, value, "true or false")
	case *time.Duration:
		return assignDuration(to, value)
	case *[]string:
		return assignList(to, value)
	case *Size:
		return assignSize(to, value)
	case *Share:
		return assignShare(to, value)
	case *int:
		return assignInt(to, value)
	}
	panic(fmt.Sprintf("config: a setting of type %T", to))
}

func assignAs[T any](to *T, value any, want string) error {
	v, ok := value.(T)
	if !ok {
		return fmt.Errorf("want %s", want)
	}
	*to = v
	return nil
}

func assignDuration(to *time.Duration, value any) error {
	text, _ := value.(string)
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf(`want a duration, as in "90s" or "10m"`)
	}
	*to = d
	return nil
}

func assignList(to *[]string, value any) error {
	items, ok := value.([]any)
	if !ok {
		return fmt.Errorf(`want a list of texts, as in ["a", "b"]`)
	}
	list := make([]string, len(items))
	for i, item := range items {
		if list[i], ok = item.(string); !ok {
			return fmt.Errorf(`want a list of texts, as in ["a", "b"]`)
		}
	}
	*to = list
	return nil
}

// truth has the words of the Slurm plugin's variables (spank/check.c): some,
// such as BERTH_CONTAINER_MOUNT_HOME, are read by both.
var truth = map[string]bool{
	"1": true, "yes": true, "true": true, "on": true,
	"0": false, "no": false, "false": false, "off": false,
}

// assignText stores what an environment variable says. Lists have none.
func assignText(to any, text string) error {
	if b, ok := to.(*bool); ok {
		v, ok := truth[strings.ToLower(text)]
		if !ok {
			return fmt.Errorf("want yes or no")
		}
		*b = v
		return nil
	}
	return assign(to, text)
}

// format returns the value that at points at, as TOML writes it.
func format(at any) string {
	switch v := at.(type) {
	case *string:
		return quote(*v)
	case *bool:
		return strconv.FormatBool(*v)
	case *time.Duration:
		return quote(trimDuration(*v))
	case *Size:
		return quote(v.String())
	case *Share:
		return quote(v.String())
	case *int:
		return strconv.Itoa(*v)
	case *[]string:
		items := make([]string, len(*v))
		for i, s := range *v {
			items[i] = quote(s)
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	panic(fmt.Sprintf("config: a setting of type %T", at))
}

// trimDuration writes 10m0s as 10m, the way people do.
func trimDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// quote writes a TOML basic string. Go escapes control characters in ways
// that TOML does not know, so those are written as \uXXXX.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
