#define LEVEL_NAME   "baseline"
#define LEVEL_SYMBOL level_baseline
#include "level.c"
