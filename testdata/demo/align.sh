#!/bin/bash
#SBATCH --job-name=align
#SBATCH --ntasks=1
#SBATCH --output=/shared/demo/align-%A_%a.out
# One task of the array: aligns a third of the reads to the genome in /db.
# bwa and samtools are the image's; nothing of the node is used but the kernel.
set -euo pipefail
part=$((SLURM_ARRAY_TASK_ID - 1))
begin=$(date +%s.%N)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fastq() { # every third read
  awk -v part="$part" '{ if (int((NR - 1) / 4) % 3 == part) print }' <"$1"
}
bwa mem -v 1 /db/lambda/lambda_virus.fa <(fastq /reads/reads_1.fq) <(fastq /reads/reads_2.fq) 2>"$work/bwa.log" |
  samtools sort -o "$work/part.bam" -
samtools index "$work/part.bam"
mapped=$(samtools view -c -F 4 "$work/part.bam")
total=$(samtools view -c "$work/part.bam")
touch /db/lambda/probe 2>/dev/null && echo "/db is writable: this is a fault" && exit 1
printf '%s as %s in %s: %s of %s reads aligned, %s, %.2f s\n' \
  "$SLURMD_NODENAME" "$(id -un)" "$(. /etc/os-release && echo "$PRETTY_NAME")" "$mapped" "$total" \
  "$(bwa 2>&1 | sed -n 's/^Version: /bwa /p')" "$(echo "$(date +%s.%N) $begin" | awk '{print $1 - $2}')"
