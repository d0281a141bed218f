/*
 * pid: a command in another pid namespace. A process cannot change its own, so
 * the command is a child, and the calling process stays outside, in between:
 * it hands on the signals that it is sent, and ends as the command does, by the
 * same signal or with the same status.
 *
 * In a new namespace the kernel needs a process number 1, to which orphans go,
 * and with which all others end. It is not the command, which need not be made
 * for that: programs do not expect that signals without a handler are ignored,
 * and that strange children have to be waited for.
 *
 *   caller   waits, outside                    (its descriptors are closed)
 *    init    number 1: reaps, hands signals on (only of a new namespace)
 *     command
 */
#ifndef BERTH_PID_H
#define BERTH_PID_H

#include "join.h"

enum {
  PID_SAME = 0, /* the caller's own */
  PID_NEW = -1, /* one that is made here, with a /proc of its own */
};

/*
 * pid_enter runs between join_move and join_become. pid is the descriptor of a
 * namespace, or one of the words above. It returns 0 in the process that is to
 * become the command, or -1 with err filled; for PID_SAME in the caller.
 *
 * Where the machine hides parts of /proc from everybody, the kernel lets
 * nobody mount a new one: the old one stays, and a line on standard error says
 * so.
 */
int pid_enter(int pid, const struct join_namespaces *ns, struct join_error *err);

#endif
