#ifndef BERTH_COMMAND_H
#define BERTH_COMMAND_H

#include <slurm/spank.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * Says why Slurm will not be able to start the step's command in the container
 * that this task has joined, if that can be told: there is none of that name,
 * it is not executable, or its interpreter is missing. Slurm fails every task
 * with an errno; this is the line that tells the user what to do. prologs are
 * the task prologs that Slurm starts first, or NULLs.
 */
void command_explain(spank_t sp, const char *const prologs[2]);

/*
 * command_find looks for a program in the folders of a list such as PATH, which
 * it takes apart. path gets where it is.
 */
bool command_find(char *list, const char *name, char *path, size_t size);

#endif
