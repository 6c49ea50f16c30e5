#define LEVEL_NAME   "avx2"
#define LEVEL_SYMBOL level_avx2
#include "level.c"
