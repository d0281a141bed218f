/*
 * janitor: removes a container's folder on scratch when the container is gone.
 *
 *   berth-create janitor NAME    waits, in the background, and removes NAME
 *   berth-create giveback NAME   gives all in NAME that is another id's to the user
 *   berth-create keeper -         waits, in the background, with a lock open
 *
 * Descriptor 3 is N1, 4 the folder that has NAME, 5 an inotify with one watch,
 * on the container's root file system (janitor and keeper). The keeper has the lock
 * of a kept container as descriptor 4. Runs as the user, and in N1 as root in
 * appearance, because the container's files may have other ids than the user's.
 * It is C, and waits before Go starts, to cost little for as long as it waits.
 */
#ifndef BERTH_JANITOR_H
#define BERTH_JANITOR_H

/* Goes on in a process of its own and session; does not return. */
void janitor(const char *name) __attribute__((noreturn));

/* The same, and removes nothing: what keeps the lock is the open descriptor. */
void keeper(void) __attribute__((noreturn));

/* Does not return either; the exit status says whether all could be given. */
void give_back(const char *name) __attribute__((noreturn));

#endif
