/*
 * call: one command of Slurm's that somebody in a container wants to run on
 * the node outside, and how it travels there.
 *
 * It is a memory file of records `key=value`, each ended by a NUL byte (the
 * form of launcher/join/wire.h without its limit, because an environment is
 * part of it): command, arg…, env…, cwd, umask, limit….
 */
#ifndef BERTH_CALL_H
#define BERTH_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

enum { CALL_MAX = 16 << 20, CALL_LIMITS = 16 };

/* The variable that names the abstract socket of the caller's own helper. */
#define CALL_SOCKET "BERTH_SLURM_SOCKET"

/* The folder in the container in which the client has the names of Slurm's commands. */
#define CALL_FOLDER "/run/berth-slurm"

struct call {
  const char *command; /* without a slash */
  const char *cwd;
  mode_t mask;
  char **argv; /* ends with NULL; argv[0] is the command */
  char **env;  /* ends with NULL */
  struct rlimit limits[CALL_LIMITS];
  bool limited[CALL_LIMITS];
};

/* call_name returns the command that a program of this name stands for, or NULL. */
const char *call_name(const char *path);

/*
 * call_seal writes what this process would run into a memory file that nobody
 * can change any more, and returns its descriptor, or -1 with errno set.
 */
int call_seal(const char *command, char *const *args, char *const *env);

/*
 * call_read reads a call from a memory file. What it fills in is allocated
 * and lives as long as the process. Returns false for what is no call.
 */
bool call_read(int fd, struct call *c);

#endif
