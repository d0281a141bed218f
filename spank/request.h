/*
 * request: what a user asks for, from the submit host to the node.
 *
 * It travels in the job's environment, one SLURM_BERTH_… variable per value:
 * variables named SLURM* survive --export=NONE, and Slurm's own transport of
 * options carries only the last use of a repeated one and nothing that came
 * from the environment. srun, sbatch and salloc write all of them each time,
 * so a step never sees a mixture of its own and its job's. The same values go
 * into the job control environment (SPANK_BERTH_… in job_prolog,
 * SLURM_SPANK_BERTH_… in the job), which survives --export-file.
 */
#ifndef BERTH_REQUEST_H
#define BERTH_REQUEST_H

#include <stdbool.h>

#include "wire.h"

/* NULL: not asked for. Strings are allocated and live as long as the plugin. */
struct request {
  char *image;
  char *digest; /* of this image; "sha256:…" */
  char *mounts; /* SRC:DST[:FLAGS][,...] */
  char *workdir;
  char *home;           /* "0" or "1" */
  char *root;           /* "readonly" or "writable" */
  char *remap;          /* "0" or "1": appear as root */
  char *pin;            /* "yes", "no" or "require" */
  char *slurm;          /* "0" or "1": Slurm's commands in the container */
  char *env;            /* NAME[,NAME] */
  char *host_mpi;       /* "1": the node's MPI in place of the image's */
  char *device;         /* DEVICE[,DEVICE] */
  char *unshare;        /* net, ipc, uts: NS[,NS] */
  char *name;           /* of the container: NAME[:MODE] */
  char *save;           /* PATH or docker://…: what the container has become goes there */
  char *entrypoint;     /* "0" or "1": run the image's before the tasks */
  char *entrypoint_log; /* "0" or "1" */
  char *task_prolog;    /* of srun --task-prolog; an absolute path */
  char *bcast;          /* "1": the program is a copy on the node (srun --bcast) */
};

/* Whether a container is asked for: one that exists needs no image. */
bool request_wants(const struct request *r);

/* A source of variables: returns an allocated value, or NULL. */
typedef char *request_getenv(void *context, const char *name);

/* Sets a variable, or unsets it if value is NULL. */
typedef void request_setenv(void *context, const char *name, const char *value);

/*
 * request_import fills r from the variables with this prefix (such as
 * "SLURM_BERTH_"); the digest only if it is this image's.
 */
void request_import(struct request *r, const char *prefix, request_getenv *get, void *context);

/* request_export sets or unsets all variables with this prefix. */
void request_export(const struct request *r, const char *prefix, request_setenv *set,
                    void *context);

/* request_pin returns "DIGEST=IMAGE", allocated: a digest never travels without its image. */
char *request_pin(const char *digest, const char *image);

/* request_pinned returns the digest in pin if it was made for image, else NULL. Allocated. */
char *request_pinned(const char *pin, const char *image);

/* request_encode appends r as the helper expects it. */
void request_encode(const struct request *r, struct wire_writer *w);

#endif
