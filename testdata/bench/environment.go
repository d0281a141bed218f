package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A Machine is what was measured on.
type Machine struct {
	CPUs      int     `json:"cpus"`
	CPU       string  `json:"cpu"`
	Virtual   bool    `json:"virtual"` // a hypervisor is below
	MemoryMiB int     `json:"memory_mib"`
	Kernel    string  `json:"kernel"`
	System    string  `json:"system"`
	WorkDir   string  `json:"work_file_system"` // of the files that are measured
	LoadBegan float64 `json:"load_began"`       // of the last minute; a quiet machine has less than 0.1
	LoadEnded float64 `json:"load_ended"`
}

// machine describes this one. What can't be read is left empty.
func machine(work string) Machine {
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	meminfo, _ := os.ReadFile("/proc/meminfo")
	release, _ := os.ReadFile("/etc/os-release")
	m := Machine{CPUs: runtime.NumCPU(), Virtual: regexp.MustCompile(`(?m)^flags.*\bhypervisor\b`).Match(cpuinfo), LoadBegan: load()}
	first := func(text []byte, pattern string) string {
		if m := regexp.MustCompile(pattern).FindSubmatch(text); m != nil {
			return string(m[1])
		}
		return ""
	}
	m.CPU = first(cpuinfo, `(?m)^model name\s*: (.*)$`)
	m.System = first(release, `(?m)^PRETTY_NAME="?([^"\n]*)`)
	kB, _ := field(meminfo, "MemTotal")
	m.MemoryMiB = int(kB / 1024)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	m.WorkDir = fileSystem(work)
	return m
}

// load is the load of the last minute.
func load() float64 {
	var x float64
	text, _ := os.ReadFile("/proc/loadavg")
	_, _ = fmt.Sscan(string(text), &x)
	return x
}

func fileSystem(dir string) string {
	out, _ := exec.Command("findmnt", "-n", "-o", "FSTYPE", "-T", dir).Output()
	return string(bytes.TrimSpace(out))
}

func (m Machine) String() string {
	virtual := ""
	if m.Virtual {
		virtual = "virtual "
	}
	return fmt.Sprintf("%d %sCPUs (%s), %d MiB, Linux %s, %s, files on %s; load %.2f when it began, %.2f when it ended",
		m.CPUs, virtual, m.CPU, m.MemoryMiB, m.Kernel, m.System, m.WorkDir, m.LoadBegan, m.LoadEnded)
}

// A Peer is a program or library that Berth is compared with or measured in.
type Peer struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Missing string `json:"missing,omitempty"` // why
}

func (p Peer) String() string {
	if p.Missing != "" {
		return p.Name + ": not measured: " + p.Missing
	}
	return p.Name + " " + p.Version
}

// peers are Debian's packages, what they lack, and libraries that are linked in.
func peers(ctx context.Context, top string) []Peer {
	var all []Peer
	for _, name := range []string{
		"bubblewrap", "charliecloud", "podman", "crun", "skopeo", "umoci", "squashfs-tools", "squashfuse",
		"slurm-wlm-basic-plugins", "openmpi-bin", "e2fsprogs", "libc6",
	} {
		p := Peer{Name: name}
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name).Output()
		if status, version, _ := strings.Cut(string(out), " "); err == nil && status == "installed" {
			p.Version = version
		} else {
			p.Missing = "not installed (tools/deps bench)"
		}
		all = append(all, p)
	}
	for _, name := range []string{"enroot", "apptainer"} {
		all = append(all, Peer{Name: name, Missing: "not in Debian 12"})
	}
	return append(all, Peer{Name: "libcontainer", Version: libcontainer(ctx, top)}, Peer{Name: "Go", Version: runtime.Version()})
}

// libcontainer is the version that Berth and the minimal program share.
func libcontainer(ctx context.Context, top string) string {
	out, err := exec.CommandContext(ctx, "go", "list", "-C", top, "-m", "-f", "{{.Version}}", "github.com/opencontainers/runc").Output()
	if err != nil {
		return "unknown"
	}
	return string(bytes.TrimSpace(out))
}
