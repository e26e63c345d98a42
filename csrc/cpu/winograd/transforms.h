// The transforms between pixels or weights and points, a vector of channels at a time.
//
// In the notation of Lavin and Gray: input B^T d B, weight G g G^T, output A^T m A; for the gradient of the weight grad_out
// goes by A y A^T, and G^T u G comes back. The polynomial of weight and patch is interpolated at the points; G takes the
// denominators, so that B and A are of the points themselves. One dimension is a function; `both` applies it to the columns,
// then to the rows of a square.
//
// Include like ../engine.h: inside the target of an instruction set.

template <class V, int M>
struct Transform;

/// F(4 x 4, 3 x 3) at 0, +-p, +-q and infinity.
template <class V>
struct Transform<V, 4> {
  static constexpr float p = 0.625f, q = 1.5f;
  static constexpr float p2 = p * p, q2 = q * q, p3 = p2 * p, q3 = q2 * q;
  static constexpr float n0 = 1 / (p2 * q2), np = 1 / (2 * p2 * (p2 - q2)), nq = 1 / (2 * q2 * (q2 - p2));

  LTH_SPARSE_INLINE static V of(float value) { return V::broadcast(value); }

  LTH_SPARSE_INLINE static void input(const V (&d)[6], V (&o)[6]) {
    o[0] = d[4].minus_product(of(p2 + q2), d[2]).plus_product(of(p2 * q2), d[0]);
    o[5] = d[5].minus_product(of(p2 + q2), d[3]).plus_product(of(p2 * q2), d[1]);
    const V even_p = d[4].minus_product(of(q2), d[2]), odd_p = (of(p) * d[3]).minus_product(of(p * q2), d[1]);
    o[1] = even_p + odd_p;
    o[2] = even_p - odd_p;
    const V even_q = d[4].minus_product(of(p2), d[2]), odd_q = (of(q) * d[3]).minus_product(of(q * p2), d[1]);
    o[3] = even_q + odd_q;
    o[4] = even_q - odd_q;
  }
  LTH_SPARSE_INLINE static void output(const V (&m)[6], V (&y)[4]) {
    const V sum_p = m[1] + m[2], difference_p = m[1] - m[2], sum_q = m[3] + m[4], difference_q = m[3] - m[4];
    y[0] = m[0] + sum_p + sum_q;
    y[1] = (of(p) * difference_p).plus_product(of(q), difference_q);
    y[2] = (of(p2) * sum_p).plus_product(of(q2), sum_q);
    y[3] = m[5].plus_product(of(p3), difference_p).plus_product(of(q3), difference_q);
  }
  LTH_SPARSE_INLINE static void gradient(const V (&y)[4], V (&z)[6]) {
    z[0] = y[0];
    z[5] = y[3];
    const V even_p = y[0].plus_product(of(p2), y[2]), odd_p = y[1].plus_product(of(p2), y[3]);
    z[1] = even_p.plus_product(of(p), odd_p);
    z[2] = even_p.minus_product(of(p), odd_p);
    const V even_q = y[0].plus_product(of(q2), y[2]), odd_q = y[1].plus_product(of(q2), y[3]);
    z[3] = even_q.plus_product(of(q), odd_q);
    z[4] = even_q.minus_product(of(q), odd_q);
  }
  LTH_SPARSE_INLINE static void weight(const V (&g)[3], V (&u)[6]) {
    u[0] = of(n0) * g[0];
    u[5] = g[2];
    const V even_p = (of(np) * g[0]).plus_product(of(np * p2), g[2]);
    u[1] = even_p.plus_product(of(np * p), g[1]);
    u[2] = even_p.minus_product(of(np * p), g[1]);
    const V even_q = (of(nq) * g[0]).plus_product(of(nq * q2), g[2]);
    u[3] = even_q.plus_product(of(nq * q), g[1]);
    u[4] = even_q.minus_product(of(nq * q), g[1]);
  }
  LTH_SPARSE_INLINE static void weight_gradient(const V (&u)[6], V (&g)[3]) {
    const V sum_p = u[1] + u[2], difference_p = u[1] - u[2], sum_q = u[3] + u[4], difference_q = u[3] - u[4];
    g[0] = (of(nq) * sum_q).plus_product(of(np), sum_p).plus_product(of(n0), u[0]);
    g[1] = (of(nq * q) * difference_q).plus_product(of(np * p), difference_p);
    g[2] = u[5].plus_product(of(nq * q2), sum_q).plus_product(of(np * p2), sum_p);
  }
};

/// F(2 x 2, 3 x 3) at 0, +-1 and infinity.
template <class V>
struct Transform<V, 2> {
  LTH_SPARSE_INLINE static void input(const V (&d)[4], V (&o)[4]) {
    o[0] = d[0] - d[2];
    o[1] = d[1] + d[2];
    o[2] = d[2] - d[1];
    o[3] = d[1] - d[3];
  }
  LTH_SPARSE_INLINE static void output(const V (&m)[4], V (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
  LTH_SPARSE_INLINE static void gradient(const V (&y)[2], V (&z)[4]) {
    z[0] = y[0];
    z[1] = y[0] + y[1];
    z[2] = y[0] - y[1];
    z[3] = V::zero() - y[1];
  }
  LTH_SPARSE_INLINE static void weight(const V (&g)[3], V (&u)[4]) {
    const V half = V::broadcast(0.5f), even = half * (g[0] + g[2]);
    u[0] = g[0];
    u[1] = even.plus_product(half, g[1]);
    u[2] = even.minus_product(half, g[1]);
    u[3] = g[2];
  }
  LTH_SPARSE_INLINE static void weight_gradient(const V (&u)[4], V (&g)[3]) {
    const V half = V::broadcast(0.5f), sum = half * (u[1] + u[2]);
    g[0] = u[0] + sum;
    g[1] = half * (u[1] - u[2]);
    g[2] = u[3] + sum;
  }
};

/// take(row, column) -> V is a From x From square, give(row, column, V) its transform, To x To; `one` is of one dimension.
template <int From, int To, class V, class Take, class One, class Give>
LTH_SPARSE_INLINE void both(const Take& take, const One& one, const Give& give) {
  V half[To][From];
  LTH_SPARSE_UNROLL
  for (int j = 0; j < From; ++j) {
    V column[From], out[To];
    LTH_SPARSE_UNROLL
    for (int i = 0; i < From; ++i) column[i] = take(i, j);
    one(column, out);
    LTH_SPARSE_UNROLL
    for (int i = 0; i < To; ++i) half[i][j] = out[i];
  }
  LTH_SPARSE_UNROLL
  for (int i = 0; i < To; ++i) {
    V out[To];
    one(half[i], out);
    LTH_SPARSE_UNROLL
    for (int j = 0; j < To; ++j) give(i, j, out[j]);
  }
}
