/*
 * ready: takes a container that stands ready, instead of making one. It runs
 * before anything else in `berth run`, which costs more to start than joining
 * does; whatever is not plain is left to the program.
 *
 * A holder (standby.h) has a socket in a private folder of the user's, under a name
 * made of the identity of the run that made the container (identity.h). With the
 * container's descriptors it gives away an offer, a message (wire.h) that says
 * when the container is the one that would be made now:
 *
 *   identity=TEXT                    the run's, whole
 *   until=SECONDS                    CLOCK_BOOTTIME; later a registry has to be asked
 *   sees=NAME=VALUE  misses=NAME     variables on which something depended
 *   ending=SUFFIX                    no variable ends so but those of sees
 *   file=DEV:INO:SIZE:SEC:NSEC:PATH  a file that was read
 *   source=DEV:INO:PATH              what is mounted
 *   absent=PATH                      what would be read or mounted, if it were there
 *
 * and what a task does:
 *
 *   argv=WORD                        the image's command, where the run names none
 *   unset=NAME  set=NAME=VALUE  keep=NAME
 */
#ifndef BERTH_READY_H
#define BERTH_READY_H

#include <stdbool.h>

#include "identity.h"

/*
 * ready_folder opens the folder of sockets: $XDG_RUNTIME_DIR/berth, else
 * /tmp/berth-UID, made if need be when make is set. Returns -1 unless it is
 * the user's own folder and closed to others.
 */
int ready_folder(bool make);

/* What ready_look found under a name. */
enum ready_found { READY_NOTHING, READY_GOOD, READY_STALE };

/*
 * ready_look asks a holder and says whether its container is the one for id.
 * pid is the holder's process, 0 where that is not known.
 */
enum ready_found ready_look(int folder, const char *name, const struct identity *id, int *pid);

/*
 * ready_run makes the process a command in a container that stands ready, if the
 * arguments are those of a `berth run` for which there is one. Otherwise it
 * returns, and has changed nothing.
 */
void ready_run(int argc, char **argv);

#endif
