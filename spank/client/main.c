/*
 * berth-slurm: Slurm's commands in a container (docs/slurm-inside.md).
 *
 *   srun, sbatch, … (names of it in the container)   hand the call out
 *   berth-slurm serve    the helper outside: descriptor 0 is the listening
 *                        socket, 1 a pidfd of the task; started by the plugin
 *
 * Always as the user. Static, because it runs in every image.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "call.h"
#include "inside.h"
#include "outside.h"

int main(int argc, char **argv, char **env) {
  const char *command = argc > 0 ? call_name(argv[0]) : NULL;
  if (command != NULL)
    return inside_run(command, argv + 1, env);
  if (argc == 2 && strcmp(argv[1], "serve") == 0) {
    signal(SIGPIPE, SIG_IGN);
    outside_serve(0, 1);
    return 0;
  }
  fputs("usage: a link with the name of one of Slurm's commands, or berth-slurm serve\n", stderr);
  return 64;
}
