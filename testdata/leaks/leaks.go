// Package leaks is for TestMain of packages that start goroutines or processes or
// open files: all tests together leave none of them behind. Whatever a package
// does in a process that lives on, some test does, and what each time leaves is
// there at the end.
//
// It sees the process of the tests. Mounts keep folders of tests from being
// removed, which fails the test by itself; what is left on nodes is TestResidue's
// (testdata/e2e).
package leaks

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/goleak"
)

// A Tests is testing's M.
type Tests interface{ Run() int }

// Checked is tests that fail if they leave something.
func Checked(m Tests) Tests { return checked{m} }

type checked struct{ tests Tests }

// Run runs the tests, and gives what ends by itself a few seconds to do so.
func (c checked) Run() int {
	before := now()
	code := c.tests.Run()
	if code != 0 {
		return code
	}
	if left := before.settle(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "leaks: tests left:\n%s\n", strings.Join(left, "\n"))
		return 1
	}
	return 0
}

// A state is what a process had at a moment.
type state struct {
	held       []string
	goroutines goleak.Option
}

func now() state { return state{held(), goleak.IgnoreCurrent()} }

// settle waits until there is nothing that was not there then, and returns what
// there is after ten seconds.
func (s state) settle() (left []string) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		if left = s.left(); len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// left is what there is that was not there then.
func (s state) left() []string {
	left := more(s.held, held())
	if err := goleak.Find(s.goroutines); err != nil { // waits for half a second itself
		left = append(left, err.Error())
	}
	return left
}

// held is the descriptors and children of this process, a line each.
func held() (all []string) {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		// The poller's are made at first use, once; the one that lists the folder is gone.
		if to, err := os.Readlink(fd); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			all = append(all, "descriptor "+filepath.Base(fd)+": "+to)
		}
	}
	children, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range children {
		pids, _ := os.ReadFile(file)
		for _, pid := range strings.Fields(string(pids)) {
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			all = append(all, "child: "+pid+" "+strings.TrimSpace(string(name)))
		}
	}
	return all
}

// more are the lines of after that before does not have as often.
func more(before, after []string) (lines []string) {
	before = slices.Clone(before)
	for _, line := range after {
		if i := slices.Index(before, line); i >= 0 {
			before = slices.Delete(before, i, i+1)
		} else {
			lines = append(lines, line)
		}
	}
	return lines
}
