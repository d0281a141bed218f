/*
 * janitor: removes a container's folder on scratch when the container is gone.
 *
 *   berth-create janitor NAME
 *
 * Descriptor 3 is N1, 4 an inotify with one watch, on the container's root file
 * system, 5 the folder that has NAME. Runs as the user, and in N1 as root in
 * appearance, because the container's files may have other ids than the user's.
 * It is C, and waits before Go starts, to cost little for as long as it waits.
 */
#ifndef BERTH_JANITOR_H
#define BERTH_JANITOR_H

/* Goes on in a process of its own and session; does not return. */
void janitor(const char *name) __attribute__((noreturn));

#endif
