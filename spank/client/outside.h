/*
 * outside: the helper that runs Slurm's commands for one task in a container.
 * The plugin starts it as the user, from the task before that enters the
 * container: so it is in the job's cgroup, sees what the job sees of the node,
 * and can do nothing that the user's job script could not do.
 */
#ifndef BERTH_OUTSIDE_H
#define BERTH_OUTSIDE_H

/*
 * outside_serve takes calls on the listening socket until the process behind
 * the pidfd task has ended, then ends what still runs and returns.
 */
void outside_serve(int listening, int task);

#endif
