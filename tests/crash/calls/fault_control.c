/* fault_shim.c for a fork server: a forked child sets the FAULT_ variables and begins to count anew. */
#include "fault_shim.c"

void fault_restart(void) {
    start();
}
