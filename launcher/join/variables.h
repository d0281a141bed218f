/*
 * variables: what the image's entrypoint changed of the environment.
 *
 * A container whose entrypoint is run before its tasks has a folder of its
 * own for that, which the container's creator makes and shows. In it are
 *
 *   ready        a program (berth-ready): the command that the entrypoint gets;
 *                it leaves its environment in `environment`
 *   lock         locked by the task that runs the entrypoint, for as long as it does
 *   begun        the entrypoint was started
 *   variables    what it changed, once it has ended well: records in the format of
 *                wire.h, env=NAME=VALUE and unset=NAME
 *
 * All of it belongs to the container's user, who may write what they like there:
 * it decides on the variables of their own tasks.
 */
#ifndef BERTH_VARIABLES_H
#define BERTH_VARIABLES_H

#include <stdbool.h>
#include <sys/types.h>

#include "join.h"

/* As EntrypointFolder of package launcher. */
#define VARIABLES_FOLDER "/.berth-entrypoint"

#define VARIABLES_READY VARIABLES_FOLDER "/ready"
#define VARIABLES_LOCK VARIABLES_FOLDER "/lock"
#define VARIABLES_BEGUN VARIABLES_FOLDER "/begun"
#define VARIABLES_FILE VARIABLES_FOLDER "/variables"
#define VARIABLES_ENVIRONMENT VARIABLES_FOLDER "/environment"

/* variables_expected says whether the container's entrypoint is run before its tasks. */
bool variables_expected(const struct join_result *result);

/*
 * variables_read reads a whole regular file of at most JOIN_RESULT_MAX bytes into
 * buf, which has as much room. Returns its length, or -1 with errno set: EFBIG
 * for a longer one.
 */
ssize_t variables_read(const char *path, char *buf);

/*
 * variables_take gives the task, which has the image's variables, those of the
 * entrypoint over them; what is kept (join_kept) and the task has stays. Without
 * a file there is nothing to take. Returns 0, or -1 with err filled.
 */
int variables_take(const struct join_result *result, const struct join_environment *env,
                   struct join_error *err);

#endif
