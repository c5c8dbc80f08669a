/* The least that a step of LIF neurons takes: rows added, leak, threshold, a list of who fired, reset to zero.
   16 * N neurons of one leak and one threshold; these, membranes and sums stay in registers (AVX-512).
   Compiled by ours_simulate.py with -DN=2 for the readout and -DN=16 for 256 neurons; checked like every simulator. */
#include <immintrin.h>
#include <stdint.h>

#define EACH for (int j = 0; j < N; j++)

static inline __attribute__((always_inline)) void add(__m512 *cur, const float *weight, int32_t i) {
    EACH cur[j] = _mm512_add_ps(cur[j], _mm512_load_ps(weight + (int64_t)i * 16 * N + 16 * j));
}

/* ptr [B * (T + 1)] and idx: events; begins: the same of the spikes, whose units go to places. */
int64_t steps(int64_t n_samples, int64_t n_steps, const int64_t *ptr, const int32_t *idx, const float *weight,
              const float *recurrent, float beta, float threshold, int32_t *places, int64_t *begins) {
    const __m512 leak = _mm512_set1_ps(beta), edge = _mm512_set1_ps(threshold);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int64_t used = 0;
    for (int64_t b = 0; b < n_samples; b++) {
        const int64_t *arrived = ptr + b * (n_steps + 1);
        int64_t *out = begins + b * (n_steps + 1), first = used;
        __m512 v[N];
        EACH v[j] = _mm512_setzero_ps();
        out[0] = used;
        for (int64_t t = 0; t < n_steps; t++) {
            __m512 cur[N];
            __mmask16 fired[N];
            unsigned any = 0;
            EACH cur[j] = _mm512_setzero_ps();
            for (int64_t e = arrived[t]; e < arrived[t + 1]; e++) add(cur, weight, idx[e]);
            if (recurrent)
                for (int64_t e = first; e < out[t]; e++) add(cur, recurrent, places[e]);
            EACH {
                v[j] = _mm512_add_ps(_mm512_mul_ps(leak, v[j]), cur[j]);
                fired[j] = _mm512_cmp_ps_mask(v[j], edge, _CMP_GT_OQ);
                any |= fired[j];
            }
            first = used;
            if (any)
                EACH {
                    __m512i unit = _mm512_add_epi32(lane, _mm512_set1_epi32(16 * j));
                    v[j] = _mm512_mask_mov_ps(v[j], fired[j], _mm512_setzero_ps());
                    _mm512_storeu_si512(places + used, _mm512_maskz_compress_epi32(fired[j], unit));
                    used += __builtin_popcount(fired[j]);
                }
            out[t + 1] = used;
        }
    }
    return used;
}
