package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Direct is the value of a proxy setting that means: no proxy.
const Direct = "direct"

// proxyURL takes the address of a proxy. Its errors never show the address,
// which may hold a password.
func proxyURL(value any) error {
	text := value.(string)
	if text == "" || text == Direct {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New(`want an address, as in "http://proxy.example.org:3128", or "direct"`)
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5":
		return fmt.Errorf("a proxy's address begins with http://, https:// or socks5://")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return errors.New("a proxy's address has no path")
	}
	return nil
}

// hideLogin replaces the password in a proxy's address.
func hideLogin(value any) any {
	text, _ := value.(string)
	u, err := url.Parse(text)
	if err != nil || u.User == nil {
		return value
	}
	return u.Redacted()
}
