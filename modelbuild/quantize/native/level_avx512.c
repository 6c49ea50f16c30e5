#define LEVEL_NAME   "avx512"
#define LEVEL_SYMBOL level_avx512
#include "level.c"
