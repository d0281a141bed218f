/*
 * inside: a command of Slurm's as a container has it. It hands the call to
 * the helper outside, passes signals on, and ends as the command ended.
 */
#ifndef BERTH_INSIDE_H
#define BERTH_INSIDE_H

/* inside_run returns the exit status, or dies of the signal that ended the command. */
int inside_run(const char *command, char *const *args, char *const *env);

#endif
