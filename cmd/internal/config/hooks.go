package config

import "time"

// Hooks say which programs of the site run while a container is made.
type Hooks struct {
	Dirs    []string      // later ones count more
	Timeout time.Duration // of a hook that does not say
}

func hookSettings() []Setting {
	return []Setting{
		{
			Key: "hooks.dirs", Open: true, check: absoluteList,
			Doc: "Folders of OCI hooks (*.json, oci-hooks(5)), which run as the user while a container is made. A file hides one of the same name in a folder before. On a managed node root must own folders, files and programs; users who run containers by hand may name folders of their own.",
			at:  func(c *Config, _ string) any { return &c.Hooks.Dirs },
		},
		{
			Key: "hooks.timeout", check: positive,
			Doc: "When a hook that does not say how long it takes is killed, with all that it started, and the container fails.",
			at:  func(c *Config, _ string) any { return &c.Hooks.Timeout },
		},
	}
}

func defaultHooks() Hooks {
	return Hooks{Dirs: []string{"/etc/berth/hooks.d"}, Timeout: 10 * time.Second}
}
