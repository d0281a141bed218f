package warm

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestWorkflows(t *testing.T) {
	for _, tc := range []struct {
		name          string
		files         map[string]string
		want, unclear []string
	}{
		{"nextflow.config", map[string]string{
			"nextflow.config": `
// container = 'quay.io/no/comment:1'
/* process.container = 'quay.io/no/comment:2' */
params.container = 'quay.io/no/parameter:1'
docker.registry = 'quay.io'
process.container = 'biocontainers/samtools:1.20--h50ea8bc_0'
process {
    containerOptions = '--no'
    withName: 'ALIGN|SORT' { container = "quay.io/biocontainers/bwa:0.7.18--he4a0461_1" }
    withLabel: big {
        container = "${params.registry}/x:1"
        container = { task.cpus > 4 ? 'a' : 'b' }
    }
}
process { container = "docker://docker.io/debian:12" }
includeConfig 'conf/more.config'
includeConfig "${projectDir}/conf/any.config"
includeConfig 'conf/missing.config'
`,
			"conf/more.config": "process.container = 'https://depot.galaxyproject.org/singularity/x:1'\nincludeConfig '../nextflow.config'\nprocess { withName: X { container 'biocontainers/y:2' } }\n",
		}, []string{
			"quay.io/biocontainers/samtools:1.20--h50ea8bc_0", "quay.io/biocontainers/bwa:0.7.18--he4a0461_1", "docker.io/library/debian:12", "quay.io/biocontainers/y:2",
		}, []string{
			"nextflow.config:11: ${params.registry}/x:1", "nextflow.config:12: container = { task.cpus > 4 ? 'a' : 'b' }",
			"nextflow.config:17: includes ${projectDir}/conf/any.config", "nextflow.config:18: includes conf/missing.config: open conf/missing.config: file does not exist",
			"conf/more.config:1: https://depot.galaxyproject.org/singularity/x:1 (no image in a registry)",
		}},
		{"main.nf", map[string]string{
			"main.nf": "include { FASTQC } from './modules/fastqc'\ninclude { validate } from 'plugin/nf-schema'\n" +
				"process A {\n  container 'quay.io/biocontainers/fastqc:0.12.1--hdfd78af_0'\n  script:\n  \"\"\"\n  container 'quay.io/no/script:1'\n  \"\"\"\n}\n" +
				"process B {\n  container params.tool\n}\n",
			"modules/fastqc.nf": "process FASTQC {\n    container \"${ workflow.containerEngine == 'singularity' && !task.ext.singularity_pull_docker_container ?\n" +
				"        'https://depot.galaxyproject.org/singularity/samtools:1.21--h50ea8bc_0' :\n        'quay.io/biocontainers/samtools:1.21--h50ea8bc_0' }\"\n}\n",
		}, []string{
			"quay.io/biocontainers/fastqc:0.12.1--hdfd78af_0", "quay.io/biocontainers/samtools:1.21--h50ea8bc_0",
		}, []string{"main.nf:11: container params.tool"}},
		{"Snakefile", map[string]string{
			"Snakefile": `
container: "docker://quay.io/biocontainers/samtools:1.20--h50ea8bc_0"
include: "rules/map.smk"
include: config["more"]
rule a:
    # container: "docker://quay.io/no/comment:1"
    singularity:
        'docker://continuumio/miniconda3:24.1.2-0'
    shell: "echo container: nothing"
rule b:
    container: config["image"]
rule c:
    container: f"docker://x/{TOOL}:1"
rule d:
    container: "docker://quay.io/x/" "y:1"
rule e:
    container: "images/x.sif"
`,
			"rules/map.smk": "rule m:\n    containerized: \"docker://quay.io/biocontainers/bwa:0.7.18--he4a0461_1\"\n    shell:\n        \"\"\"\n        container: \"docker://quay.io/no/script:1\"\n        \"\"\"\n",
		}, []string{
			"quay.io/biocontainers/samtools:1.20--h50ea8bc_0", "docker.io/continuumio/miniconda3:24.1.2-0", "quay.io/biocontainers/bwa:0.7.18--he4a0461_1",
		}, []string{
			`Snakefile:11: container: config["image"]`, `Snakefile:13: container: f"docker://x/{TOOL}:1"`, `Snakefile:15: container: "docker://quay.io/x/" "y:1"`,
			"Snakefile:17: images/x.sif (no image in a registry)", `Snakefile:4: include: config["more"]`,
		}},
		{"images.txt", map[string]string{"images.txt": "debian:12\n"}, []string{"docker.io/library/debian:12"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := fstest.MapFS{}
			for name, text := range tc.files {
				files[name] = &fstest.MapFile{Data: []byte(text)}
			}
			l, err := FromWorkflow(files, tc.name)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Fields(lines(l.Entries)); cmp.Diff(tc.want, got) != "" {
				t.Error(cmp.Diff(tc.want, got))
			}
			if diff := cmp.Diff(tc.unclear, l.Unclear); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseQueue(t *testing.T) {
	const text = `  101                 2001                2001                site note berth=r.example/a:1@` + digest + ` more
102                 2001                2001                berth=r.example/a:1@` + digest + `
103                 2002                2002                berth=r.example/a:1@` + digest + `
104                 2002                2002
105                 2002                2002                berth=./x.sif
106                 2002                2002                berth=/etc/shadow
107                 2002                2002                noberth=r.example/b
notanumber          2002                2002                berth=r.example/b
99999999999         2002                2002                berth=r.example/b
108                 2001                2001                berth=r.example/b
109                 2001                2001                berth=r.example/c
110                 2003                2003                berth=r.example/c
111                 2004                2004                berth=r.example/d
`
	jobs, skipped := ParseQueue(text, Bounds{Images: 4, PerUser: 2})
	var got []string
	for _, j := range jobs {
		got = append(got, string(j.Job)+" "+j.UID+" "+j.Entry.Name())
	}
	want := []string{
		"101 2001 r.example/a:1@" + digest, "103 2002 r.example/a:1@" + digest, "108 2001 r.example/b:latest", "110 2003 r.example/c:latest",
	}
	if diff := cmp.Diff(want, got); diff != "" || skipped != 2 {
		t.Errorf("%d skipped: %s", skipped, diff)
	}
}
