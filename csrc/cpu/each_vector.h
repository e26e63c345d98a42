// A run of elements, vector by vector; the last one may have fewer lanes.
//
// Include like engine.h, before what calls it.

/// The number of lanes of a whole vector, known when compiling: no mask is made for it.
template <class V>
struct Whole {
  constexpr operator int() const { return V::width; }
};

template <class V>
LTH_SPARSE_INLINE V load(const float* from, Whole<V>) { return V::load(from); }
template <class V>
LTH_SPARSE_INLINE V load(const float* from, int lanes) { return V::load(from, lanes); }

/// `streamed`: past the caches, which only whole vectors can be, at addresses that are multiples of them.
template <class V>
LTH_SPARSE_INLINE void store(float* to, V value, Whole<V>, bool streamed) {
  if (streamed) value.stream(to);
  else value.store(to);
}
template <class V>
LTH_SPARSE_INLINE void store(float* to, V value, int lanes, bool) { value.store(to, lanes); }

template <class V>
LTH_SPARSE_INLINE V load_bytes(const uint8_t* from, Whole<V>) { return V::load_bytes(from); }
template <class V>
LTH_SPARSE_INLINE V load_bytes(const uint8_t* from, int lanes) {
  uint8_t bytes[V::width] = {};
  for (int k = 0; k < lanes; ++k) bytes[k] = from[k];
  return V::load_bytes(bytes);
}
template <class V>
LTH_SPARSE_INLINE void store_bytes(uint8_t* to, V value, Whole<V>) { value.store_bytes(to); }
template <class V>
LTH_SPARSE_INLINE void store_bytes(uint8_t* to, V value, int lanes) {
  uint8_t bytes[V::width];
  value.store_bytes(bytes);
  for (int k = 0; k < lanes; ++k) to[k] = bytes[k];
}

/// A Clamp in vectors.
template <class V>
struct Clamping {
  explicit Clamping(const Clamp& of)
      : least(V::broadcast(of.least)), greatest(V::broadcast(of.greatest)), blocked_to(V::broadcast(of.blocked_to)),
        blocked_from(V::broadcast(of.blocked_from)) {}
  V least, greatest, blocked_to, blocked_from;
  LTH_SPARSE_INLINE V of(V z) const { return z.clamped(least, greatest); }
  /// What passes of a gradient, where z went in; or where it came out.
  LTH_SPARSE_INLINE V passing(V gradient, V z) const { return gradient.where_between(z, blocked_to, blocked_from); }
};

/// Calls body(first element, lanes) for each vector of `count` elements.
template <class V, class Body>
LTH_SPARSE_INLINE void each_vector(int64_t count, const Body& body) {
  int64_t at = 0;
  for (; at + V::width <= count; at += V::width) body(at, Whole<V>());
  if (at < count) body(at, static_cast<int>(count - at));
}

/// Whether runs of so many elements from here on, one after the other, can be streamed as whole vectors, and are so long that
/// caches would not hold them anyway.
template <class V>
inline bool worth_streaming(const float* to, int64_t run, int64_t all) {
  constexpr int64_t kStreamFrom = int64_t{16} << 20;
  constexpr int64_t bytes = V::width * sizeof(float);
  return all * int64_t{sizeof(float)} >= kStreamFrom && run % V::width == 0 && reinterpret_cast<uintptr_t>(to) % bytes == 0;
}

template <class V>
inline double sum_of_lanes(V value) {
  float lanes[V::width];
  value.store(lanes);
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}
