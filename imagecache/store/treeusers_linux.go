package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// treeHolders names the processes of this user that have a mount of the folder
// tree, or of something in it: containers without FUSE. Nobody holds a tree
// that is not there.
func treeHolders(tree string) ([]string, error) {
	real, err := filepath.EvalSymlinks(tree)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	marks := treeMarks(tree, real, string(mounts))
	files, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	var by []string
	for _, file := range files {
		data, err := os.ReadFile(file) // fails for others' processes, and for those that ended
		if err == nil && containsAny(string(data), marks) {
			by = append(by, processName(filepath.Base(filepath.Dir(file))))
		}
	}
	return by, nil
}

// treeMarks are what a line of mountinfo has of a mount of tree: a bind's has
// the path within its file system as the fourth field, an overlay's the path
// as it was given (proc_pid_mountinfo(5)). real is tree without symbolic links.
func treeMarks(tree, real, mounts string) (marks []string) {
	root, point := "/", "/"
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) > 4 && isBelow(escaped(real), f[4]) && len(f[4]) >= len(point) {
			root, point = f[3], f[4]
		}
	}
	within := filepath.Join(root, strings.TrimPrefix(escaped(real), point))
	for _, end := range []string{" ", "/"} {
		marks = append(marks, " "+within+end)
	}
	for _, lower := range []string{escaped(tree), escaped(real)} {
		for _, end := range []string{":", ",", "/", " ", "\n"} {
			marks = append(marks, "="+lower+end, ":"+lower+end) // lowerdir=A:B
		}
	}
	return marks
}

func isBelow(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

func containsAny(text string, marks []string) bool {
	for _, m := range marks {
		if strings.Contains(text, m) {
			return true
		}
	}
	return false
}

// escaped writes a path the way the kernel does in mountinfo.
func escaped(path string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(path)
}
