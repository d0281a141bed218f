package doctor

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// pluginName is how the plugin's file is called.
const pluginName = "spank_berth.so"

// A plugin is the line of plugstack.conf that loads Berth's.
type plugin struct {
	path     string
	optional bool
	args     map[string]string
}

// findPlugin reads plugstack.conf; nil when no line loads the plugin.
func findPlugin(c *slurmConf) (*plugin, error) {
	path := c.get("PlugStackConfig", filepath.Join(filepath.Dir(c.path), "plugstack.conf"))
	return pluginIn(path, 0)
}

func pluginIn(path string, depth int) (*plugin, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for _, line := range lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		if strings.EqualFold(words[0], "include") && depth < 8 {
			if p, err := pluginInAny(words[1], depth+1); p != nil || err != nil {
				return p, err
			}
		}
		if filepath.Base(words[1]) == pluginName {
			return &plugin{path: words[1], optional: strings.EqualFold(words[0], "optional"), args: arguments(words[2:])}, nil
		}
	}
	return nil, nil
}

// pluginInAny looks into the files of an include, which may be a pattern.
func pluginInAny(pattern string, depth int) (*plugin, error) {
	files, err := filepath.Glob(pattern)
	for _, file := range files {
		if p, err := pluginIn(file, depth); p != nil || err != nil {
			return p, err
		}
	}
	return nil, err
}

func arguments(words []string) map[string]string {
	args := map[string]string{}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		args[key] = value
	}
	return args
}

// line is what plugstack.conf should have.
func (n *Node) line() string {
	prefix := filepath.Dir(filepath.Dir(n.Command[0]))
	return fmt.Sprintf("required %s/lib/berth/%s bindir=%s/bin libexec=%s", prefix, pluginName, prefix, n.Libexec)
}

func checkPlugstack(_ context.Context, n *Node) []Finding {
	return withSlurm(n, func(c *slurmConf) []Finding {
		p, err := findPlugin(c)
		switch {
		case err != nil:
			return one(Fail, "Slurm does not know Berth: "+oneLine(err), "write into plugstack.conf: "+n.line())
		case p == nil:
			return one(Fail, "no line loads "+pluginName+": srun has no --container-image", "add to plugstack.conf: "+n.line())
		case p.optional:
			return one(Warn, "the plugin is optional: on a node that can't load it, jobs run outside of their images", "write required for optional in plugstack.conf, once every node has the plugin")
		}
		return good("the plugin is required")
	})
}

// checkPlugin looks at the plugin's file, its release, and the programs that
// it starts.
func checkPlugin(ctx context.Context, n *Node) []Finding {
	return withSlurm(n, func(c *slurmConf) []Finding {
		p, err := findPlugin(c)
		if err != nil || p == nil {
			return nil // told by checkPlugstack
		}
		if f := p.programs(); f != nil {
			return f
		}
		return p.checkRelease(ctx, c)
	})
}

// programs are those that the arguments name; without arguments they are where
// the plugin was built to find them, which nobody can see.
func (p *plugin) programs() []Finding {
	for _, program := range []struct{ arg, name string }{{"bindir", "berth"}, {"libexec", "berth-create"}} {
		dir, named := p.args[program.arg]
		if !named {
			continue
		}
		path := filepath.Join(dir, program.name)
		if err := unix.Access(path, unix.X_OK); err != nil {
			return one(Fail, fmt.Sprintf("the plugin starts %s: %s", path, oneLine(err)), "correct "+program.arg+"= in plugstack.conf, or install Berth there")
		}
	}
	return nil
}

func (p *plugin) checkRelease(ctx context.Context, c *slurmConf) []Finding {
	path, err := p.file(c)
	if err != nil {
		return one(Fail, "Slurm's daemons and commands can't start without it: "+oneLine(err), "install the plugin there, or write optional for required in plugstack.conf until it is")
	}
	built, err := builtFor(path)
	if err != nil {
		return one(Fail, path+" is no plugin: "+oneLine(err), "install Berth's plugin again")
	}
	running, err := slurmRelease(ctx)
	switch {
	case err != nil:
		return one(Warn, fmt.Sprintf("built for Slurm %s; which one is here can't be told: %s", built, oneLine(err)), "compare with: slurmd -V")
	case built != running:
		return one(Fail, fmt.Sprintf("%s was built for Slurm %s and this machine has %s, which refuses it", path, built, running),
			"build it against this Slurm: make -C spank SLURM_INCLUDE=/usr/include")
	}
	return good("built for Slurm " + built + ", as this machine has")
}

// file is the plugin's path: a relative one is looked up in PluginDir.
func (p *plugin) file(c *slurmConf) (string, error) {
	if filepath.IsAbs(p.path) {
		_, err := os.Stat(p.path)
		return p.path, err
	}
	dirs := c.get("PluginDir", "/usr/lib/slurm:/usr/lib64/slurm:/usr/lib/x86_64-linux-gnu/slurm-wlm:/usr/lib/x86_64-linux-gnu/slurm")
	for _, dir := range filepath.SplitList(dirs) {
		path := filepath.Join(dir, p.path)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s", p.path, dirs)
}

// builtFor reads the release out of the plugin's file: the number in its
// symbol plugin_version is SLURM_VERSION_NUM(major, minor, micro), a byte each.
func builtFor(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return "", err
	}
	for _, s := range symbols {
		if s.Name != "plugin_version" || int(s.Section) >= len(f.Sections) {
			continue
		}
		section := f.Sections[s.Section]
		number := make([]byte, 4)
		if _, err := section.ReadAt(number, int64(s.Value-section.Addr)); err != nil {
			return "", err
		}
		return releaseOf(binary.NativeEndian.Uint32(number)), nil
	}
	return "", errors.New("no symbol plugin_version")
}

func releaseOf(number uint32) string {
	return fmt.Sprintf("%d.%02d", number>>16&0xff, number>>8&0xff)
}
