package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The builds that `bench compare` has beside each other.
const (
	baseBuild = "base"
	headBuild = "head"
)

// A versus is one run of `bench compare`: two builds of Berth, measured in turns by
// this program, so that what it asks of them must be in both: commands and options,
// nothing of their inside.
type versus struct {
	bench
	builds  map[string]string // folders with bin, libexec and lib
	results []result
}

// A result is what was measured of both builds under one name.
type result struct {
	name    string
	samples []Sample // whose variants are the builds
}

func compareBuilds(ctx context.Context, args []string) error {
	v := &versus{builds: map[string]string{}}
	flags := v.flags("bench compare")
	base := flags.String("base", "", "a build to compare with")
	head := flags.String("head", "", "the build of this tree")
	revision := flags.String("revision", "unknown", "of base")
	flags.IntVar(&v.rounds, "rounds", 10, "rounds of each comparison; with fewer than 6 benchstat gives no interval")
	only := flags.String("only", "", "what to compare, of run, pull and srun: names with commas between; everything by default")
	if err := flags.Parse(args); err != nil {
		return err
	}
	v.builds[baseBuild], v.builds[headBuild] = *base, *head
	chosen, err := choose([]section{
		{"run", []string{"tiny"}, v.compareRuns},
		{"pull", []string{smallImage}, v.comparePulls},
		{"srun", []string{"tiny", "mpi"}, v.compareSruns},
	}, *only)
	if err != nil {
		return err
	}
	for _, s := range chosen {
		if err := v.build(ctx, s.images); err != nil {
			return err
		}
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return v.benchstat(ctx, *revision)
}

// patience bounds each comparison; rounds that do not fit are left out.
func (v *versus) patience() time.Duration { return 15 * time.Second * time.Duration(v.rounds) }

// benchstat writes base.txt and head.txt, and has benchstat compare them.
func (v *versus) benchstat(ctx context.Context, revision string) error {
	dir := filepath.Join(v.out, "compare")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	args := []string{"tool", "-modfile=tools/go.mod", "benchstat"}
	labels := map[string]string{baseBuild: revision, headBuild: headBuild}
	for _, build := range []string{baseBuild, headBuild} {
		file := filepath.Join(dir, build+".txt")
		if err := os.WriteFile(file, benchFormat(v.results, build), 0o644); err != nil {
			return err
		}
		args = append(args, labels[build]+"="+file)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = v.top
	out, err := output(cmd, nil)
	if err != nil {
		return err
	}
	fmt.Printf("%s", out)
	return os.WriteFile(filepath.Join(dir, "benchstat.txt"), out, 0o644)
}

// benchFormat is what a build's runs took, in the format of `go test -bench`
// (golang.org/design/14313-benchmark-format): one line per run.
func benchFormat(results []result, build string) []byte {
	var b strings.Builder
	for _, r := range results {
		for _, s := range r.samples {
			if s.Variant != build || s.Code != 0 {
				continue
			}
			fmt.Fprintf(&b, "Benchmark%s 1 %.0f ns/op", r.name, s.Wall*1e9)
			for _, more := range []struct {
				unit  string
				value float64
			}{{"cpu-ns/op", s.CPU * 1e9}, {"max-RSS-B", s.RSS}, {"written-B", s.Written}} {
				if more.value > 0 {
					fmt.Fprintf(&b, " %.0f %s", more.value, more.unit)
				}
			}
			b.WriteString("\n")
		}
	}
	return []byte(b.String())
}

// measure runs both builds in turns, after one run of each that is not counted.
// Runs that fail are told and left out; a build of which all fail is an error.
func (v *versus) measure(ctx context.Context, name string, run func(build string) Sample) error {
	bounded, cancel := context.WithTimeout(ctx, v.patience())
	defer cancel()
	samples := interleave(bounded, v.rounds, []Variant{{Name: baseBuild}, {Name: headBuild}}, func(x Variant) Sample { return run(x.Name) })
	return v.take(name, samples)
}

func (v *versus) take(name string, samples []Sample) error {
	good := map[string]int{}
	failure := ""
	for _, s := range samples {
		if s.Code == 0 {
			good[s.Variant]++
			continue
		}
		failure = s.failure()
		fmt.Fprintf(os.Stderr, "%s, round %d: %s\n", name, s.Round, failure)
	}
	if good[baseBuild] == 0 || good[headBuild] == 0 {
		return fmt.Errorf("%s: no run of a build ended well: %s", name, failure)
	}
	v.results = append(v.results, result{name, samples})
	fmt.Printf("%s: %d rounds\n", name, good[headBuild])
	return nil
}

// A RunSpec is what `bench runs` reads as JSON on standard input. It answers with
// samples by the name of the work.
type RunSpec struct {
	Dir    string            `json:"dir"`
	Builds map[string]string `json:"builds"`
	Images map[string]string `json:"images"` // of the builds
	Rounds int               `json:"rounds"`
	Limit  time.Duration     `json:"limit"`
}

// compareRuns compares `berth run` of an ordinary user.
func (v *versus) compareRuns(ctx context.Context) error {
	spec := RunSpec{Dir: filepath.Join(v.work, "runs"), Builds: v.builds, Images: map[string]string{}, Rounds: v.rounds, Limit: v.patience()}
	for name, build := range v.builds {
		spec.Images[name] = filepath.Join(spec.Dir, name+".sqsh")
		if err := errors.Join(os.MkdirAll(spec.Dir, 0o755), v.save(ctx, build, "tiny", spec.Images[name])); err != nil {
			return err
		}
	}
	in, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	out, err := output(v.alone(ctx, "runs"), in)
	if err != nil {
		return err
	}
	var samples map[string][]Sample
	if err := json.Unmarshal(out, &samples); err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	var failed error
	for _, name := range slices.Sorted(maps.Keys(samples)) {
		failed = errors.Join(failed, v.take("Run/"+name, samples[name]))
	}
	return failed
}

// runRuns needs root, a session and a mount namespace of its own.
func runRuns(ctx context.Context, in io.Reader, out io.Writer) error {
	var spec RunSpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return fmt.Errorf("read what to run: %w", err)
	}
	defer endHolders(ctx)
	for name := range spec.Builds {
		if err := makeHome(ctx, filepath.Join(spec.Dir, name)); err != nil {
			return err
		}
	}
	if err := shareFUSE(ctx, spec.Dir); err != nil {
		return err
	}
	samples := map[string][]Sample{}
	for name, options := range map[string][]string{"warm": nil, "cold": {"--no-reuse"}} {
		bounded, cancel := context.WithTimeout(ctx, spec.Limit)
		samples[name] = interleave(bounded, spec.Rounds, []Variant{{Name: baseBuild}, {Name: headBuild}}, func(v Variant) Sample {
			one, cancel := context.WithTimeout(ctx, oneRun)
			defer cancel()
			build := spec.Builds[v.Name]
			args := slices.Concat([]string{filepath.Join(build, "bin/berth"), "run"}, options, []string{spec.Images[v.Name], "/bin/true"})
			cmd := exec.CommandContext(one, args[0], args[1:]...)
			cmd.Dir = "/"
			cmd.Env = userEnvironment(filepath.Join(spec.Dir, v.Name), filepath.Join(build, "libexec/berth"))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(benchUser.UID), Gid: uint32(benchUser.GID)}}
			return execute(cmd)
		})
		cancel()
	}
	return json.NewEncoder(out).Encode(samples)
}

// comparePulls compares pulls of the small image, into empty stores and of what is
// there.
func (v *versus) comparePulls(ctx context.Context) error {
	dir := filepath.Join(v.work, "pull")
	reg, err := startRegistry(ctx, v.work, dir, smallImage+":1")
	if err != nil {
		return err
	}
	defer reg.stop()
	of := func(build string) pullSite {
		return pullSite{reg.host, reg.ca, filepath.Join(dir, build), filepath.Join(v.builds[build], "bin")}
	}
	berth, ref := pullers()[0], smallImage+":1"
	var failed error
	cold := func(build string) Sample {
		s, err := of(build).run(ctx, berth, ref)
		failed = errors.Join(failed, err)
		return s
	}
	warm := func(build string) Sample { return of(build).again(ctx, berth, ref) }
	return errors.Join(v.measure(ctx, "Pull/cold", cold), failed, v.measure(ctx, "Pull/warm", warm), reg.stop())
}

// compareSruns compares warm starts on two clusters at once, of which one is idle.
func (v *versus) compareSruns(ctx context.Context) error {
	sites := map[string]*site{}
	for name, build := range v.builds {
		s, err := v.startSite(ctx, "cluster-"+name, build)
		if err != nil {
			return err
		}
		sites[name] = s
	}
	var failed error
	for _, shape := range srunShapes() {
		start := Variant{Name: inContainer, Args: append(srun(shape.args...), image("tiny"), "true")}
		failed = errors.Join(failed, v.measure(ctx, "Srun/"+strings.ReplaceAll(shape.name, " ", "_"), func(build string) Sample {
			return sites[build].once(ctx, start, idle())
		}))
	}
	for _, s := range sites {
		failed = errors.Join(failed, s.stop(ctx))
	}
	return failed
}
