/* Grids of the IQ1, IQ2 and IQ3 types: the combinations of levels that exist, and what is near those that do not. */
#ifndef MODELBUILD_GRID_H
#define MODELBUILD_GRID_H

#include <stddef.h>
#include <stdint.h>

#define GRID_MOST_POINTS 4096

/* Neighbours that are looked at together. */
#define NEIGHBOURS 8

/* Some neighbours of a combination: level i of each of them, then the next; and which points they are. */
typedef struct {
    uint8_t levels[8][NEIGHBOURS];
    uint16_t points[NEIGHBOURS];
} neighbours;

/* A combination of levels has the number level 0 + level 1 * base + level 2 * base^2 and so on. */
typedef struct {
    int size;              /* levels of a point: 4 or 8 */
    int base;              /* levels go from 0 to base - 1 */
    int points;            /* how many there are */
    int combinations;      /* base^size */
    uint8_t (*levels)[8];  /* of each point */
    int16_t *point_of;     /* of each combination; -1: there is none */
    uint32_t *list_of;     /* of each combination without a point: the first of its lists */
    uint16_t *list_length; /* in lists of NEIGHBOURS */
    neighbours *lists;     /* nearest first, equal distances by the number of the point; filled up with the first */
} grid;

/* Makes a grid from the numbers of its points. A combination that is no point gets as neighbours all points at the
 * least `shells` distances. NULL without memory, or when a number is out of range or occurs twice. */
grid *grid_create(int size, int base, int shells, const uint16_t *numbers, int points);

void grid_free(grid *g);

#endif
