package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// scale has tests of testdata/e2e measure on clusters of sixteen nodes of their
// own. What they judge is in scale.log; their numbers are put into the report.
func (b *bench) scale(ctx context.Context) error {
	if b.site != nil { // it would share the processors
		if err := b.site.stop(ctx); err != nil {
			return err
		}
		b.site = nil
	}
	many, predictions := filepath.Join(b.out, "many.json"), filepath.Join(b.out, "predictions.json")
	if err := errors.Join(os.MkdirAll(b.out, 0o755), os.RemoveAll(many), os.RemoveAll(predictions)); err != nil {
		return err
	}
	args := []string{
		"test", "-C", filepath.Join(b.top, "testdata/e2e"), "-run", "TestManyNodes$|TestPredictions$", "-count=1", "-timeout", "90m",
		"-many.report", many, "-predict.out", b.out,
	}
	mirror, err := exec.LookPath("docker-registry")
	if err == nil {
		args = append(args, "-predict.mirror", mirror)
	}
	log, failed := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	if failed != nil {
		failed = fmt.Errorf("%w; see %s", failed, filepath.Join(b.out, "scale.log"))
	}
	failed = errors.Join(failed, os.WriteFile(filepath.Join(b.out, "scale.log"), log, 0o644))
	return errors.Join(failed, b.manyNodes(many), b.predictions(predictions, err == nil))
}

// manyNodes shows what TestManyNodes has written.
func (b *bench) manyNodes(file string) error {
	var waves []struct {
		Name   string    `json:"name"`
		Starts []float64 `json:"starts_s"`
		CPU    float64   `json:"cpu_s"`
		Peak   struct {
			Process float64 `json:"process_mib"`
			All     float64 `json:"all_mib"`
		} `json:"peak"`
	}
	if err := readJSON(file, &waves); err != nil {
		return err
	}
	t := Table{Title: "64 jobs of 8 users at once on 16 nodes", Columns: []string{
		"s to the first", "s to the last", "starts per s", "CPU s per start", "MiB, largest process of ours", "MiB, all of ours",
	}}
	for _, w := range waves {
		if len(w.Starts) == 0 {
			t.Rows = append(t.Rows, Row{Name: w.Name, Missing: "no job started"})
			continue
		}
		n, last := float64(len(w.Starts)), slices.Max(w.Starts)
		row := Row{Name: w.Name, Ours: w.Name != "bare"}
		for _, v := range []float64{slices.Min(w.Starts), last, n / last, w.CPU / n, w.Peak.Process, w.Peak.All} {
			row.Cells = append(row.Cells, summarize([]float64{v}))
		}
		t.Rows = append(t.Rows, row)
		var ps []pair
		for _, s := range w.Starts {
			ps = append(ps, pair{ours: s})
		}
		b.add(comparison{section: t.Title, name: "time until a job runs, " + w.Name, unit: "s", ours: w.Name, scale: 1, statistic: "median"}.line(ps, 0, ""))
	}
	b.addTable(t)
	return nil
}

// predictions shows what TestPredictions has written: starts, and what package
// simulate says of them.
func (b *bench) predictions(file string, mirror bool) error {
	const mostWrong = 20 // %
	var all []struct {
		Name      string    `json:"name"`
		Kind      string    `json:"kind"` // fitted, predicted or unbound
		Rounds    []float64 `json:"rounds_s"`
		Predicted float64   `json:"predicted_s"`
	}
	if err := readJSON(file, &all); err != nil {
		return err
	}
	t := Table{Title: "starts on 1 to 16 nodes until the last task runs, and their prediction", Columns: []string{"measured s", "predicted s", "error %"}}
	worst := comparison{section: "predictions of starts", name: "largest error of those that were not fitted", unit: "%", ours: "simulate", scale: 1, statistic: "most", target: most(mostWrong)}
	var wrong []pair
	for _, p := range all {
		is := summarize(p.Rounds)
		off := 100 * (p.Predicted/is.Median - 1)
		t.Rows = append(t.Rows, Row{Name: p.Kind + ": " + p.Name, Ours: p.Kind == "predicted", Cells: []*Summary{is, summarize([]float64{p.Predicted}), summarize([]float64{off})}})
		if p.Kind == "predicted" {
			wrong = append(wrong, pair{ours: math.Abs(off)})
		}
	}
	if !mirror {
		t.Rows = append(t.Rows, Row{Name: "through a mirror", Missing: "docker-registry is not installed (tools/deps)"})
	}
	b.addTable(t)
	b.add(worst.line(wrong, 0, "no start was predicted"))
	return nil
}

func readJSON(file string, into any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}
