/*
 * filter: lets system calls that need ids which a container does not have
 * succeed without doing anything, for tasks that appear as root.
 *
 * Where one uid and one gid are mapped, the kernel refuses to give a file to
 * anybody else or to become somebody else, and package managers do both all
 * the time. No file changes hands and nobody changes their ids; what programs
 * ask afterwards (stat, getresuid) says so truthfully. It is a help, no guard:
 * a call that it misses is refused by the kernel as ever.
 *
 * The list is that of ch-run's --seccomp and image builders of its kind, see
 * R. Priedhorsky and others, "Zero-consistency root emulation for unprivileged
 * container image build" (2024).
 */
#ifndef BERTH_FILTER_H
#define BERTH_FILTER_H

#include <stdbool.h>

/*
 * filter_wanted says whether the process's user namespace has one uid only.
 * It reads /proc/self/uid_map, and says true where it can't.
 */
bool filter_wanted(void);

/*
 * filter_install filters the calling thread and all that it starts from now
 * on. The caller must hold CAP_SYS_ADMIN in its user namespace, so that
 * no_new_privs is left as it is. Returns 0, also where the kernel has no
 * filters; else -1 with errno.
 */
int filter_install(void);

#endif
