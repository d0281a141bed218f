/*
 * check: what is wrong with a value, found before the job is submitted. A
 * check here saves a queue time; it guards nothing, because the node reads
 * the values again as data of the user.
 *
 * Each function returns true, or false with a line for the user in error:
 * the cause, and where there is one the remedy.
 */
#ifndef BERTH_CHECK_H
#define BERTH_CHECK_H

#include <stdbool.h>

enum { CHECK_ERROR_SIZE = 512 };

/* A path on the node (begins with . or /), or a registry reference. */
bool check_image(const char *value, char error[CHECK_ERROR_SIZE]);

/* True where value is a path on the node. */
bool check_image_is_path(const char *value);

/* SRC[:DST[:FLAGS]][,...] */
bool check_mounts(const char *value, char error[CHECK_ERROR_SIZE]);

bool check_workdir(const char *value, char error[CHECK_ERROR_SIZE]);

/* NAME[,NAME] */
bool check_env(const char *value, char error[CHECK_ERROR_SIZE]);

/* vendor/class=name or a path below /dev, [,...] */
bool check_device(const char *value, char error[CHECK_ERROR_SIZE]);

/* yes, no or require */
bool check_pin(const char *value, char error[CHECK_ERROR_SIZE]);

/* Kinds of namespaces: NS[,NS]. */
bool check_unshare(const char *value, char error[CHECK_ERROR_SIZE]);

/* NAME[:MODE], or JOB.STEP */
bool check_name(const char *value, char error[CHECK_ERROR_SIZE]);

/* PATH, or docker://[REGISTRY/]NAME[:TAG] */
bool check_save(const char *value, char error[CHECK_ERROR_SIZE]);

/* True for docker://… */
bool check_save_is_reference(const char *value);

/* Whether this process could make the file, now; on the node, as the user. */
bool check_save_target(const char *path, char error[CHECK_ERROR_SIZE]);

/* check_bool reads 1 true yes on, 0 false no off; -1 for anything else. */
int check_bool(const char *value);

/* sha256: and 64 lower-case hex characters. */
bool check_digest(const char *value);

#endif
