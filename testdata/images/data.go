package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Data makes what the demo works on, unless it is there:
//
//	db/lambda/     the lambda phage genome lambda_virus.fa with bwa's index
//	reads/         reads_1.fq reads_2.fq (pairs) and longreads.fq
//
// The files are Debian's, from the package bowtie2-examples. The index is
// made by the bwa of the image bio.
func (b Builder) Data(ctx context.Context) error {
	if b.haveData() {
		return nil
	}
	if err := b.Build(ctx, "bio"); err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(b.Cache, "locks", "data"))
	if err != nil {
		return err
	}
	defer unlock()
	if b.haveData() {
		return nil
	}
	start := time.Now()
	if err := b.makeData(ctx); err != nil {
		return fmt.Errorf("make the demo's data: %w", err)
	}
	fmt.Fprintf(b.Log, "data: made in %.1f s\n", time.Since(start).Seconds())
	return nil
}

func (b Builder) haveData() bool {
	for _, dir := range []string{"db/lambda", "reads"} {
		if _, err := os.Stat(filepath.Join(b.Cache, dir)); err != nil {
			return false
		}
	}
	return true
}

func (b Builder) makeData(ctx context.Context) error {
	arch, err := b.archive(ctx)
	if err != nil {
		return err
	}
	work := filepath.Join(b.Cache, "tmp", "data")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer os.RemoveAll(work)
	share := filepath.Join(work, "share")
	if err := os.MkdirAll(share, 0o755); err != nil {
		return err
	}
	if err := arch.unpack(ctx, "bowtie2-examples", filepath.Join(share, "deb")); err != nil {
		return err
	}
	if err := b.index(ctx, arch, work, share); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(b.Cache, "db"), 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"db/lambda", "reads"} {
		to := filepath.Join(b.Cache, dir)
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(share, filepath.Base(dir)), to); err != nil {
			return err
		}
	}
	return nil
}

// index sorts the package's files into share/lambda and share/reads.
func (b Builder) index(ctx context.Context, arch archive, work, share string) error {
	bio, err := recipeNamed("bio")
	if err != nil {
		return err
	}
	lower, err := b.tree(bio)
	if err != nil {
		return err
	}
	return arch.apply(ctx, filepath.Join(work, "scratch"), change{
		lower: lower, upper: filepath.Join(work, "away"), share: share,
		script: `umask 022
			mkdir lambda reads
			take() { find deb -name "$1*" -type f -exec cp {} "$2" \; ; }
			take lambda_virus.fa lambda
			for r in reads_1.fq reads_2.fq longreads.fq; do take $r reads; done
			gunzip lambda/*.gz reads/*.gz
			bwa index lambda/lambda_virus.fa
			ls reads/reads_1.fq reads/reads_2.fq reads/longreads.fq`,
	})
}
