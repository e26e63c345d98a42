// A run of elements to where they are of another type, or of the same, for any vector type.
//
// Include like engine.h, before it.

template <class V, class From, class To>
void convert(const From* from, int64_t count, To* to) {
  constexpr int W = V::width;
  int64_t k = 0;
  for (; k + W <= count; k += W) V::load(from + k).store(to + k);
  if (k < count) V::load(from + k, static_cast<int>(count - k)).store(to + k, static_cast<int>(count - k));
}
