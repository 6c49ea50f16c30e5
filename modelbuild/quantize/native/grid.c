#include "grid.h"

#include <stdlib.h>
#include <string.h>

static int power(int base, int exponent)
{
    int result = 1;
    while (exponent-- > 0) result *= base;
    return result;
}

static void split_number(int number, int size, int base, uint8_t *levels)
{
    for (int i = 0; i < size; i++, number /= base) levels[i] = (uint8_t)(number % base);
}

/* Numbers of the points that are neighbours of a combination, in order; gives how many. Squared distances are at most
 * 8 * 7^2, so that they are sorted by counting. */
static int find_neighbours(const grid *g, int number, int shells, uint16_t *found)
{
    enum { MOST_DISTANCE = 8 * 7 * 7 };
    static const uint8_t nothing[8] = {0};
    int count_at[MOST_DISTANCE + 1] = {0}, total = 0;
    uint16_t distance[GRID_MOST_POINTS];
    uint8_t own[8];
    memcpy(own, nothing, sizeof own);
    split_number(number, g->size, g->base, own);
    for (int p = 0; p < g->points; p++) {
        int sum = 0;
        for (int i = 0; i < 8; i++) {
            const int difference = (int)g->levels[p][i] - (int)own[i];
            sum += difference * difference;
        }
        distance[p] = (uint16_t)sum;
        count_at[sum]++;
    }
    for (int d = 0, shell = 0; d <= MOST_DISTANCE && shell < shells; d++) {
        if (count_at[d] == 0) continue;
        shell++;
        for (int p = 0; p < g->points; p++) {
            if (distance[p] == d) found[total++] = (uint16_t)p;
        }
    }
    return total;
}

/* Appends the lists of a combination; *used and *room count lists. Gives 0 without memory. */
static int append_lists(grid *g, int number, const uint16_t *found, int count, size_t *used, size_t *room)
{
    const size_t lists = ((size_t)count + NEIGHBOURS - 1) / NEIGHBOURS;
    if (*used + lists > *room) {
        const size_t wanted = (*used + lists) * 2;
        neighbours *const larger = realloc(g->lists, wanted * sizeof *larger);
        if (!larger) return 0;
        g->lists = larger;
        *room = wanted;
    }
    g->list_of[number] = (uint32_t)*used;
    g->list_length[number] = (uint16_t)lists;
    for (size_t k = 0; k < lists * NEIGHBOURS; k++) {
        const uint16_t point = found[k < (size_t)count ? k : 0];
        neighbours *const list = &g->lists[*used + k / NEIGHBOURS];
        for (int i = 0; i < 8; i++) list->levels[i][k % NEIGHBOURS] = g->levels[point][i];
        list->points[k % NEIGHBOURS] = point;
    }
    *used += lists;
    return 1;
}

static int fill_points(grid *g, const uint16_t *numbers)
{
    for (int n = 0; n < g->combinations; n++) g->point_of[n] = -1;
    for (int p = 0; p < g->points; p++) {
        if (numbers[p] >= g->combinations || g->point_of[numbers[p]] >= 0) return 0;
        g->point_of[numbers[p]] = (int16_t)p;
        split_number(numbers[p], g->size, g->base, g->levels[p]);
    }
    return 1;
}

grid *grid_create(int size, int base, int shells, const uint16_t *numbers, int points)
{
    if ((size != 4 && size != 8) || base < 2 || base > 8 || points < 1 || points > GRID_MOST_POINTS) return NULL;
    if (shells < 1 || (size == 8 && base > 4)) return NULL;
    grid *const g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->size = size;
    g->base = base;
    g->points = points;
    g->combinations = power(base, size);
    g->levels = calloc((size_t)points, sizeof *g->levels);
    g->point_of = malloc((size_t)g->combinations * sizeof *g->point_of);
    g->list_of = calloc((size_t)g->combinations, sizeof *g->list_of);
    g->list_length = calloc((size_t)g->combinations, sizeof *g->list_length);
    int ok = g->levels && g->point_of && g->list_of && g->list_length && fill_points(g, numbers);
    size_t used = 0, room = 0;
    for (int n = 0; ok && n < g->combinations; n++) {
        uint16_t found[GRID_MOST_POINTS];
        if (g->point_of[n] >= 0) continue;
        ok = append_lists(g, n, found, find_neighbours(g, n, shells, found), &used, &room);
    }
    if (ok) return g;
    grid_free(g);
    return NULL;
}

void grid_free(grid *g)
{
    if (!g) return;
    free(g->levels);
    free(g->point_of);
    free(g->list_of);
    free(g->list_length);
    free(g->lists);
    free(g);
}
