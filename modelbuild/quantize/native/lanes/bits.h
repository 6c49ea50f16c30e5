/* Bit fields that several block layouts share. */
#ifndef MODELBUILD_BITS_H
#define MODELBUILD_BITS_H

#include "lane.h"

/* 256 values of 2 bits: four planes of 32 in each half, a pair of bits each. */
INLINE void put_2_bit_planes(uint8_t *out, const uint8_t *levels)
{
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < 32; i++) {
            const uint8_t *l = levels + 128 * h + i;
            out[32 * h + i] = (uint8_t)((l[0] & 3) | (l[32] & 3) << 2 | (l[64] & 3) << 4 | (l[96] & 3) << 6);
        }
    }
}

#endif
