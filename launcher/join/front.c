#include "front.h"

#include "ready.h"

void front_link(void) {
}

__attribute__((constructor)) static void before_go(int argc, char **argv) {
  ready_run(argc, argv);
}
