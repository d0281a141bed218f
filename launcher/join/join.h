/*
 * join: makes the calling process a task of a container that exists already.
 *
 * The container is given as open descriptors: its user namespaces, its mount
 * namespace, and a result (a memory file in the format of wire.h) that says
 * where tasks start and which variables the image sets. Only the caller's own
 * credentials are used: the user namespaces belong to the user who joins.
 *
 * Callers must be single-threaded: the Slurm plugin in a forked task
 * (spank/wait.c), and the program berth-join. Nothing here allocates memory
 * or prints.
 */
#ifndef BERTH_JOIN_H
#define BERTH_JOIN_H

#include <stdbool.h>
#include <stddef.h>

#include "wire.h"

/* Why a join failed. */
struct join_error {
  char text[512];     /* a cause for the user, with errno's text in it */
  const char *remedy; /* what the user can do; NULL: it is for the admin */
};

enum { JOIN_OWN_MAX = 3 };

/* The namespaces of a container. user2 is -1 where tasks appear as root. */
struct join_namespaces {
  int user;  /* N1: the user namespace that owns mnt */
  int mnt;   /* the mount namespace */
  int user2; /* N2, below N1: there the user is themself */
  /* Those that the container has of its own, beside mnt; owned by N1. */
  struct join_own {
    int fd;
    int type; /* join_type */
  } own[JOIN_OWN_MAX];
  size_t own_count;
};

/* join_type is the CLONE_NEW… of ipc, uts or net; 0 for any other word. */
int join_type(const char *kind);

/* The largest result, in bytes: more than a program's environment may have. */
#define JOIN_RESULT_MAX ((size_t)2 << 20)

/*
 * What the container's creator leaves for its tasks. Pages that are not used
 * cost nothing.
 */
struct join_result {
  char data[JOIN_RESULT_MAX]; /* well-formed records */
  size_t len;
  const char *cwd; /* points into data */
};

/* An environment to be changed: the process's own, or Slurm's for the task. */
struct join_environment {
  void *context;
  bool (*has)(void *context, const char *name);
  int (*set)(void *context, const char *name, const char *value); /* 0 or -1 */
  void (*unset)(void *context, const char *name);
  /* The variable with this number, "NAME=VALUE", or NULL behind the last. */
  const char *(*entry)(void *context, size_t number);
  /* Names that keep the host's value: comma lists. */
  const char *const *keep;
  size_t keep_count;
};

/*
 * join_read_result reads the result from the start of fd. It copies, so that
 * what is checked stays as it was. Returns 0, or -1 with err filled.
 */
int join_read_result(int fd, struct join_result *result, struct join_error *err);

/*
 * join_enter moves the process into the container and to cwd, in this order:
 * user namespace, those of its own, mount namespace, chdir, second user
 * namespace. In the last
 * it drops every capability; without one (user2 -1) they are kept, they are
 * good for the container only, and filter.h's filter is installed where the
 * container has one id alone. It leaves alone whether the process can be
 * dumped: a forked task holds slurmstepd's memory, which its user may not read
 * before exec has replaced it; exec makes the task dumpable. On an error the process may be in
 * between: it must not run anything of the user's. Returns 0, or -1 with err filled.
 */
int join_enter(const struct join_namespaces *ns, const char *cwd, struct join_error *err);

/*
 * join_enter in two halves, for who has something to do between them, as root
 * in appearance: join_move enters all namespaces but the second user
 * namespace, join_become the folder and that one.
 */
int join_move(const struct join_namespaces *ns, struct join_error *err);
int join_become(const struct join_namespaces *ns, const char *cwd, struct join_error *err);

/*
 * join_set_environment gives a task its variables, in this order:
 *
 *  1. LANG, LANGUAGE and LC_ALL of the host go, and what a `drop` of the result
 *     names, unless it is kept;
 *  2. each variable of the image (`env`) replaces the host's, unless it is kept
 *     and the host has it;
 *  3. each variable of the site (`set`) replaces both, unless the user keeps it
 *     and the host has it.
 *
 * Kept is what the user names (keep) and what a `keep` of the result names. A
 * name of the result that ends in * stands for all that begin so. Returns 0, or
 * -1 with err filled.
 */
int join_set_environment(const struct join_result *result, const struct join_environment *env,
                         struct join_error *err);

/* join_keeps says whether the user wants the host's value of a variable. */
bool join_keeps(const struct join_environment *env, const char *name);

/* join_kept says whether the user, or a `keep` of the result, does. */
bool join_kept(const struct join_environment *env, const struct join_result *result,
               const char *name);

/* The longest name of a variable, in bytes, with a NUL. */
#define JOIN_NAME_MAX 1024

/* join_name copies the name of "NAME=VALUE"; false if there is none, or none that fits. */
bool join_name(const char *entry, char name[JOIN_NAME_MAX]);

/* join_image_sets says whether a variable is the image's, not only the job's. */
bool join_image_sets(const struct join_result *result, const char *name);

#endif
