package imagefile

import (
	"strings"
)

// A Config is what a tree says of how to run it. All of it may be empty.
type Config struct {
	Env        []string // NAME=VALUE
	WorkingDir string
	Entrypoint []string
	Cmd        []string
	Labels     map[string]string
}

// A ReadFile returns the content of a file of the tree, named without a slash
// in front. It does not follow symbolic links out of the tree.
type ReadFile func(name string) ([]byte, error)

// ReadConfig reads what Apptainer or enroot left in a tree. Files that are
// missing or strange are passed over. Nothing of the tree is run.
func ReadConfig(read ReadFile) Config {
	if script, err := read(singularityRunscript); err == nil {
		return singularityConfig(read, script)
	}
	return enrootConfig(read)
}

// validName reports whether s can be the name of a variable.
func validName(s string) bool {
	for i, r := range s {
		switch {
		case r == '_', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
		case i > 0 && ('0' <= r && r <= '9' || r == '.' || r == '-'):
		default:
			return false
		}
	}
	return s != ""
}

// setVariable replaces a variable in env, or adds it.
func setVariable(env []string, name, value string) []string {
	for i, v := range env {
		if strings.HasPrefix(v, name+"=") {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}
