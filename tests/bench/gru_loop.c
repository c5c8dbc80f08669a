// A GRU over one sample as one writes it by hand: torch.nn.GRU's equations and layout. With `ptr`, rows of open units
// alone. Four rows go through h together, so that their sums do not wait for one another.
#include <math.h>

static void dots(const float *v, const float *h, const int *rows, int n_rows, int H, float *sums) {
  int j = 0;
  for (; j + 4 <= n_rows; j += 4) {
    const float *p = v + (long)rows[j] * H, *q = v + (long)rows[j + 1] * H;
    const float *r = v + (long)rows[j + 2] * H, *s = v + (long)rows[j + 3] * H;
    float a = 0, b = 0, c = 0, d = 0;
    for (int k = 0; k < H; k++) {
      a += p[k] * h[k];
      b += q[k] * h[k];
      c += r[k] * h[k];
      d += s[k] * h[k];
    }
    sums[j] = a, sums[j + 1] = b, sums[j + 2] = c, sums[j + 3] = d;
  }
  for (; j < n_rows; j++) {
    const float *p = v + (long)rows[j] * H;
    float a = 0;
    for (int k = 0; k < H; k++) a += p[k] * h[k];
    sums[j] = a;
  }
}

// x [T], w [3 H], v [3 H, H], b and c [3 H]; idx[ptr[t]] to idx[ptr[t + 1] - 1] are open at step t, or all where both
// are null. h [H] is the state, out [T, H] gets it.
void gru(int T, int H, const float *x, const float *w, const float *v, const float *b, const float *c, const int *ptr,
         const int *idx, float *h, float *out) {
  int all[H], rows[3 * H];
  float sums[3 * H], r[H], z[H], n[H];
  for (int k = 0; k < H; k++) all[k] = k;
  for (int t = 0; t < T; t++) {
    const int *unit = ptr ? idx + ptr[t] : all;
    int K = ptr ? ptr[t + 1] - ptr[t] : H;
    for (int part = 0; part < 3; part++)
      for (int j = 0; j < K; j++) rows[part * K + j] = part * H + unit[j];
    dots(v, h, rows, 3 * K, H, sums);
    for (int j = 0; j < K; j++) {
      int k = unit[j];
      r[j] = 1 / (1 + expf(-(x[t] * w[k] + b[k] + sums[j] + c[k])));
      z[j] = 1 / (1 + expf(-(x[t] * w[H + k] + b[H + k] + sums[K + j] + c[H + k])));
      n[j] = x[t] * w[2 * H + k] + b[2 * H + k] + r[j] * (sums[2 * K + j] + c[2 * H + k]);
    }
    for (int j = 0; j < K; j++) n[j] = tanhf(n[j]);
    for (int j = 0; j < K; j++) h[unit[j]] = n[j] + z[j] * (h[unit[j]] - n[j]);
    for (int k = 0; k < H; k++) out[(long)t * H + k] = h[k];
  }
}
