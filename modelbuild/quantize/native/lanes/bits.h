/* Bit fields that several block layouts share. */
#ifndef MODELBUILD_BITS_H
#define MODELBUILD_BITS_H

#include "lane.h"

/* Levels are put together eight at a time: processors shift words but not bytes. No bit crosses into another byte. */
INLINE uint64_t load_word(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

INLINE void store_word(uint8_t *to, uint64_t word) { memcpy(to, &word, sizeof word); }

/* 256 values of 2 bits: four planes of 32 in each half, a pair of bits each. Higher bits of the levels are left out. */
INLINE void put_2_bit_planes(uint8_t *restrict out, const uint8_t *levels)
{
    const uint64_t low = 0x0303030303030303;
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < 32; i += 8) {
            const uint8_t *l = levels + 128 * h + i;
            store_word(out + 32 * h + i, (load_word(l) & low) | (load_word(l + 32) & low) << 2 |
                                             (load_word(l + 64) & low) << 4 | (load_word(l + 96) & low) << 6);
        }
    }
}

/* Bit `bit` of 256 levels: 32 bytes, bit k of byte i that of level 32 k + i. */
INLINE void put_bit_planes(uint8_t *restrict out, const uint8_t *levels, int bit)
{
    const uint64_t lowest = 0x0101010101010101;
    for (int i = 0; i < 32; i += 8) {
        uint64_t planes = 0;
        for (int k = 0; k < 8; k++) planes |= (load_word(levels + 32 * k + i) >> bit & lowest) << k;
        store_word(out + i, planes);
    }
}

#endif
